"""The value that describes one unit of the ControlNet extension of A1111's web UI: `Module: canny, Model: …`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.params.codecs import Codec, number, split_title

Codecs = Mapping[str, tuple[str, Codec]]
"""The names of a value's parts, each with the field that it stands for."""

LONGEST: Final = 80  # characters of a value that a note repeats
_FOREIGN_HASH: Final = re.compile(r" \[[0-9a-f]{8}\]$")  # of the extension's own making
NUMBER: Final = Codec(number, lambda text: (float(text),))
MODEL: Final = Codec(str, lambda text: (_FOREIGN_HASH.sub("", text),))
_ORDER: Final = (
    "Module", "Model", "Weight", "Resize Mode", "Low Vram", "Threshold A", "Threshold B", "Guidance Start",
    "Guidance End", "Pixel Perfect", "Control Mode", "Union Control Type", "Control picture", "Image encoder",
)  # fmt: skip
_WITHOUT_EFFECT: Final = ("Processor Res", "Hr Option", "Save Detected Map", "Input Mode")
_PART: Final = re.compile(rf"(?:^|,\s*)({'|'.join(map(re.escape, (*_ORDER, *_WITHOUT_EFFECT)))}):\s*", re.IGNORECASE)
_UNSAID: Final = frozenset({"", "-1", "-1.0"})


def joined(said: Mapping[str, str]) -> str:
    """Return the parts of a unit as one value, in the order in which the extension writes them."""
    return ", ".join(f"{name}: {said[name]}" for name in _ORDER if name in said)


def parts(text: str) -> dict[str, str]:
    """Return what a value says, by the names of its parts; a part that it repeats counts as it stands last."""
    spelled = {name.casefold(): name for name in (*_ORDER, *_WITHOUT_EFFECT)}
    found = [*_PART.finditer(text)]
    ends = (*(one.start() for one in found[1:]), len(text))
    said = {spelled[one[1].casefold()]: text[one.end() : end].strip() for one, end in zip(found, ends, strict=False)}
    return {name: value for name, value in said.items() if value not in _UNSAID}


def names_model(said: Mapping[str, str]) -> bool:
    """Return whether a unit names a model; one without is switched off."""
    return split_title(said.get("Model", ""))[0].casefold() not in {"", "none"}


def read(said: Mapping[str, str], codecs: Codecs, unit: dict[str, Any]) -> Iterator[str]:
    """Put the parts of a unit into `unit` by their fields; yield the names of those that cannot be read."""
    for name, (field, codec) in codecs.items():
        try:
            if name in said:
                (unit[field],) = codec.read(said[name])
        except ValueError:
            yield name
