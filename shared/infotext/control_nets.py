"""ControlNets in the text of a picture, one value a net, in the form that the extension of A1111's web UI writes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.params.codecs import Codec, choice, number, split_title
from shared.params.controlnet import ControlUnit
from shared.params.preprocessors import PREPROCESSORS

NAME: Final = re.compile(r"ControlNet (\d{1,2})", re.IGNORECASE)
_MODULES: Final = {alias: name for name, one in PREPROCESSORS.items() for alias in (one.module, name, *one.aliases)}
_RESIZES: Final = {
    "Just Resize": "resize", "Crop and Resize": "crop", "Resize and Fill": "fill",
    "Scale to Fit (Inner Fit)": "crop", "Envelope (Outer Fit)": "fill",
}  # fmt: skip
_MODES: Final = {
    "Balanced": "balanced",
    "My prompt is more important": "prompt",
    "ControlNet is more important": "control",
}
_SHOWS: Final = {
    "OpenPose": "pose", "Depth": "depth", "Soft Edge": "soft edges", "Lineart": "lines", "Normal Map": "normals",
    "Segmentation": "segments", "Tile": "tile", "Inpaint": "repaint", "Unknown": "automatic",
}  # fmt: skip
_FOREIGN_HASH: Final = re.compile(r" \[[0-9a-f]{8}\]$")  # of the extension's own making
_NUMBER: Final = Codec(number, lambda text: (float(text),))
_CODECS: Final[Mapping[str, tuple[str, Codec]]] = {
    "Module": ("preprocessor", choice(_MODULES)),
    "Model": ("model", Codec(str, lambda text: (_FOREIGN_HASH.sub("", text),))),
    "Weight": ("weight", _NUMBER),
    "Resize Mode": ("resize", choice(_RESIZES)),
    "Threshold A": ("threshold_a", _NUMBER),
    "Threshold B": ("threshold_b", _NUMBER),
    "Guidance Start": ("start", _NUMBER),
    "Guidance End": ("end", _NUMBER),
    "Control Mode": ("mode", choice(_MODES)),
    "Union Control Type": ("shows", choice(_SHOWS)),
    "Control picture": ("picture", Codec(str, lambda text: (text,))),
}
_WITHOUT_EFFECT: Final = ("Low Vram", "Pixel Perfect", "Processor Res", "Hr Option", "Save Detected Map", "Input Mode")
_PART: Final = re.compile(rf"(?:^|,\s*)({'|'.join(map(re.escape, (*_CODECS, *_WITHOUT_EFFECT)))}):\s*", re.IGNORECASE)
_LONGEST: Final = 80  # characters of a value that a note repeats


def written(units: tuple[ControlUnit, ...]) -> dict[str, str]:
    """Return the value of each net by its name in the text."""
    return {f"ControlNet {at}": _written(unit) for at, unit in enumerate(units)}


def taken(values: dict[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Take the nets out of a text's `values`; return their parameters, in order, and notes of what is not read."""
    names = {name: int(found[1]) for name in values if (found := NAME.fullmatch(name))}
    units, notes = [], list[str]()
    for name in sorted(names, key=names.__getitem__):
        unit: dict[str, Any] = {}
        notes += [f"{name}: {note}" for note in _read(values.pop(name), unit)]
        if unit:
            units.append(unit)
    return units, notes


def _written(unit: ControlUnit) -> str:
    """Return a net as one value; what is at its default stands there too where the extension writes it."""
    always = {"Module", "Model", "Weight", "Resize Mode", "Guidance Start", "Guidance End", "Control Mode"}
    said = {}
    for name, (field, codec) in _CODECS.items():
        value = getattr(unit, field)
        if name in always or value != ControlUnit.model_fields[field].default:
            said[name] = codec.write(value)
    fixed = {"Low Vram": "False", "Pixel Perfect": "True"}  # pictures are prepared at the size of the render
    order = ("Module", "Model", "Weight", "Resize Mode", "Low Vram", "Threshold A", "Threshold B", "Guidance Start")
    places = {name: at for at, name in enumerate((*order, "Guidance End", "Pixel Perfect", "Control Mode"))}
    every = sorted((said | fixed).items(), key=lambda one: places.get(one[0], len(places)))
    return ", ".join(f"{name}: {value}" for name, value in every)


def _read(text: str, unit: dict[str, Any]) -> Iterator[str]:
    """Put what a value says about a net into `unit`; yield notes of what is not read. A net without a model is none."""
    found = [*_PART.finditer(text)]
    ends = (*(one.start() for one in found[1:]), len(text))
    said = {one[1].casefold(): text[one.end() : end].strip() for one, end in zip(found, ends, strict=False)}
    for name, (field, codec) in _CODECS.items():
        if (value := said.get(name.casefold(), "")) in {"", "-1", "-1.0"}:
            continue
        try:
            (unit[field],) = codec.read(value)
        except ValueError:
            yield f"{name}: {value[:_LONGEST]}: not read" + (
                ", so its picture is followed as it is" * (name == "Module")
            )
    if split_title(str(unit.get("model", "")))[0].casefold() in {"", "none"}:
        unit.clear()
        yield f"{text[:_LONGEST]}: not read, because it names no model"
