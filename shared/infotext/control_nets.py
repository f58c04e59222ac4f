"""Control nets as units of the ControlNet extension in the text of a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.infotext.unit_text import LONGEST, MODEL, NUMBER, Codecs, joined, read
from shared.params.codecs import Codec, choice
from shared.params.controlnet import ControlUnit
from shared.params.preprocessors import PREPROCESSORS

MODULES: Final = {alias: name for name, one in PREPROCESSORS.items() for alias in (one.module, name, *one.aliases)}
"""Preprocessors by every name of theirs."""
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
_CODECS: Final[Codecs] = {
    "Module": ("preprocessor", choice(MODULES)),
    "Model": ("model", MODEL),
    "Weight": ("weight", NUMBER),
    "Resize Mode": ("resize", choice(_RESIZES)),
    "Threshold A": ("threshold_a", NUMBER),
    "Threshold B": ("threshold_b", NUMBER),
    "Guidance Start": ("start", NUMBER),
    "Guidance End": ("end", NUMBER),
    "Control Mode": ("mode", choice(_MODES)),
    "Union Control Type": ("shows", choice(_SHOWS)),
    "Control picture": ("picture", Codec(str, lambda text: (text,))),
}
_ALWAYS: Final = frozenset(
    {"Module", "Model", "Weight", "Resize Mode", "Guidance Start", "Guidance End", "Control Mode"}
)


def written(unit: ControlUnit) -> str:
    """Return a net as one value; what is at its default stands there too where the extension writes it."""
    said = {"Low Vram": "False", "Pixel Perfect": "True"}  # pictures are prepared at the size of the render
    for name, (field, codec) in _CODECS.items():
        value = getattr(unit, field)
        if name in _ALWAYS or value != ControlUnit.model_fields[field].default:
            said[name] = codec.write(value)
    return joined(said)


def taken(said: Mapping[str, str], unit: dict[str, Any]) -> Iterator[str]:
    """Put what a unit says about a net into `unit`; yield notes of what is not read."""
    for name in read(said, _CODECS, unit):
        how = ", so its picture is followed as it is" * (name == "Module")
        yield f"{name}: {said[name][:LONGEST]}: not read{how}"
