"""Pictures of NovelAI: their PNGs say the same in other chunks, a `Description` and a `Comment` in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from shared.infotext.grammar import Parts, joined

SOFTWARE: Final = "NovelAI"
_NEGATIVE: Final = "uc"
_NAMES: Final = {"steps": "Steps", "sampler": "Sampler", "scale": "CFG scale", "seed": "Seed"}


def text(chunks: Mapping[Any, Any], size: tuple[int, int]) -> str:
    """Return the `parameters` text that a PNG's chunks amount to; empty where their comment cannot be read."""
    try:
        said = json.loads(str(chunks.get("Comment")))
    except (ValueError, RecursionError):
        return ""
    if not isinstance(said, dict):
        return ""
    values = {name: str(said[field]) for field, name in _NAMES.items() if said.get(field) is not None}
    values["Size"] = f"{size[0]}x{size[1]}"
    return joined(Parts(str(chunks.get("Description", "")), str(said.get(_NEGATIVE) or ""), values))
