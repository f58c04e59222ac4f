"""IP-Adapters as units of the ControlNet extension in the text of a picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.infotext.unit_text import LONGEST, MODEL, NUMBER, Codecs, joined, read
from shared.params.codecs import Codec
from shared.params.ip_adapter import IPAdapterUnit

_MODULE: Final = "ip-adapter-auto"  # chooses the encoder by the file (Mikubill/sd-webui-controlnet, pull request 2710)
_IS_ONE: Final = re.compile(r"ip-?adapter", re.IGNORECASE)
_OF_FACES: Final = re.compile(r"face|insight|pulid", re.IGNORECASE)
_CODECS: Final[Codecs] = {
    "Model": ("model", MODEL),
    "Weight": ("weight", NUMBER),
    "Guidance Start": ("start", NUMBER),
    "Guidance End": ("end", NUMBER),
    "Control picture": ("pictures", Codec(" ".join, lambda text: (text.split(),))),
    "Image encoder": ("image_encoder", MODEL),
}
_FIXED: Final = {
    "Module": _MODULE,
    "Resize Mode": "Crop and Resize",
    "Low Vram": "False",
    "Pixel Perfect": "True",
    "Control Mode": "Balanced",
}


def is_one(said: Mapping[str, str]) -> bool:
    """Return whether a unit is an IP-Adapter, by its module: `ip-adapter_clip_sd15`, `CLIP-ViT-H (IPAdapter)`."""
    return bool(_IS_ONE.search(said.get("Module", "")))


def written(unit: IPAdapterUnit) -> str:
    """Return an adapter as one value."""
    said = {name: codec.write(getattr(unit, field)) for name, (field, codec) in _CODECS.items()}
    return joined(_FIXED | {name: value for name, value in said.items() if value})


def taken(said: Mapping[str, str], unit: dict[str, Any]) -> Iterator[str]:
    """Put what a unit says about an adapter into `unit`; yield notes of what is not read."""
    if _OF_FACES.search(said["Module"]):
        yield f"Module: {said['Module'][:LONGEST]}: not read, because it finds faces by another network"
        return
    for name in read(said, _CODECS, unit):
        yield f"{name}: {said[name][:LONGEST]}: not read"
    if (mode := said.get("Control Mode", _FIXED["Control Mode"])) != _FIXED["Control Mode"]:
        yield f"Control Mode: {mode[:LONGEST]}: not read, so the pictures and the prompt count as the weight says"
    if "pictures" not in unit:
        yield f"{said['Model'][:LONGEST]}: not read, because the text does not hold its picture"
        unit.clear()
