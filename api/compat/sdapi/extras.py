"""extra-single-image and extra-batch-images: a job that enlarges pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.compat.sdapi.asked import Asked, wrong
from api.compat.sdapi.bodies import ExtraBatch, Extras, ExtraSingle
from api.compat.sdapi.pictures import data_url, decoded
from api.services import Services
from shared.accounts.principal import Principal
from shared.params.upscale import MOST_KEPT

_PLAIN: Final = "Lanczos"  # what the program's `None` does when a size is asked for


def single(services: Services, who: Principal, sent: ExtraSingle) -> Asked:
    """Return the job of extra-single-image. Raises Refused."""
    return _asked(services, who, sent, [(sent.image, "image")])


def batch(services: Services, who: Principal, sent: ExtraBatch) -> Asked:
    """Return the job of extra-batch-images. Raises Refused."""
    return _asked(services, who, sent, [(one.data, f"imageList.{at}.data") for at, one in enumerate(sent.imageList)])


def _asked(services: Services, who: Principal, sent: Extras, pictures: Sequence[tuple[str, str]]) -> Asked:
    asked = Asked()
    for at, (picture, name) in enumerate(pictures):
        asked.put(f"upscale.pictures.{at}", {}, name)
        asked.put(f"upscale.pictures.{at}.picture", data_url(picture, name), name)
        text = services.picture_reader.text(decoded(picture, name), name, who.owner)
        if 0 < len(text) <= MOST_KEPT:
            asked.put(f"upscale.pictures.{at}.parameters", text, name)
    if sent.resize_mode:
        asked.put("upscale.width", sent.upscaling_resize_w, "upscaling_resize_w")
        asked.put("upscale.height", sent.upscaling_resize_h, "upscaling_resize_h")
    else:
        asked.put("upscale.scale", sent.upscaling_resize, "upscaling_resize")
    asked.put("upscale.upscaler", _upscaler(sent.upscaler_1), "upscaler_1")
    if sent.upscaler_2 != "None" and sent.extras_upscaler_2_visibility:
        asked.put("upscale.second", _upscaler(sent.upscaler_2), "upscaler_2")
        asked.put("upscale.second_share", sent.extras_upscaler_2_visibility, "extras_upscaler_2_visibility")
    _faces(asked, sent)
    return asked


def _upscaler(name: str) -> str:
    return _PLAIN if name.casefold() in {"", "none"} else name


def _faces(asked: Asked, sent: Extras) -> None:
    if sent.gfpgan_visibility and sent.codeformer_visibility:
        raise wrong("codeformer_visibility", "cannot be combined with gfpgan_visibility", "one of the two")
    if sent.gfpgan_visibility:
        asked.put("upscale.faces.restorer", "GFPGAN", "gfpgan_visibility")
        asked.put("upscale.faces.strength", sent.gfpgan_visibility, "gfpgan_visibility")
    elif sent.codeformer_visibility:
        asked.put("upscale.faces.restorer", "CodeFormer", "codeformer_visibility")
        asked.put("upscale.faces.strength", sent.codeformer_visibility, "codeformer_visibility")
        asked.put("upscale.faces.fidelity", sent.codeformer_weight, "codeformer_weight")
