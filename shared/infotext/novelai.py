"""Pictures of NovelAI: their PNGs say the same in other chunks, a `Description` and a `Comment` in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shared.infotext.found import Found, Json, loaded, plain, unreadable
from shared.infotext.grammar import Parts, joined

SOFTWARE: Final = "NovelAI"
_NAMES: Final = {
    "steps": "Steps",
    "sampler": "Sampler",
    "noise_schedule": "Schedule type",
    "scale": "CFG scale",
    "seed": "Seed",
    "cfg_rescale": "CFG rescale",
}
_IMPLIED: Final = {"Clip skip": "2", "ENSD": "31337"}  # never said: as all readers of its pictures take it
_OTHERS: Final = ("sm", "sm_dyn", "dynamic_thresholding", "skip_cfg_above_sigma", "reference_strength")
"""Features that the farm lacks; each is noted where it is used."""


def is_own(document: Json) -> bool:
    """Tell whether a JSON object is NovelAI's: all that its PNGs say, or their `Comment` alone."""
    is_whole = ("Description" in document and "Comment" in document) or document.get("Software") == SOFTWARE
    return (
        is_whole or ({"uc", "sampler", "scale"} <= document.keys() and "c" not in document) or "v4_prompt" in document
    )


def found(document: Json) -> Found:
    """Return what such an object amounts to."""
    chunks = document if document.keys() & {"Comment", "Software"} else {"Comment": document}
    said = loaded(chunks.get("Comment"))
    if said is None:
        return unreadable(SOFTWARE, "its comment is damaged")
    return Found(_parts(chunks, said, (0, 0)))


def text(chunks: Mapping[Any, Any], size: tuple[int, int]) -> str:
    """Return the `parameters` text that a PNG's chunks amount to; empty where their comment cannot be read."""
    said = loaded(str(chunks.get("Comment")))
    return "" if said is None else joined(_parts(chunks, said, size))


def _parts(chunks: Mapping[Any, Any], said: Json, size: tuple[int, int]) -> Parts:
    values = {name: value for field, name in _NAMES.items() if (value := plain(said.get(field)))}
    if values.get("CFG rescale") in {"0", "0.0"}:
        del values["CFG rescale"]
    values |= {field: value for field in _OTHERS if (value := plain(said.get(field)))}
    if people := _captions(said, "v4_prompt")[1:]:
        values["characters"] = "; ".join(people)
    width, height = (
        side if isinstance(side, int) and side else None for side in (said.get("width"), said.get("height"))
    )
    if width and height:
        size = (width, height)
    if all(size):
        values["Size"] = f"{size[0]}x{size[1]}"
    prompt = said.get("prompt") or chunks.get("Description") or _captions(said, "v4_prompt")[0]
    negative = said.get("uc") or _captions(said, "v4_negative_prompt")[0]
    prompt, negative = (one if isinstance(one, str) else "" for one in (prompt, negative))
    return Parts(prompt, negative, values | _IMPLIED)


def _captions(said: Json, field: str) -> list[str]:
    """Return the caption of a prompt of the fourth version, then those of its characters."""
    prompt = said.get(field)
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    if not isinstance(caption, dict):
        return [""]
    others = caption.get("char_captions")
    people = (
        [plain(one.get("char_caption")) for one in others if isinstance(one, dict)] if isinstance(others, list) else []
    )
    return [plain(caption.get("base_caption")), *filter(None, people)]
