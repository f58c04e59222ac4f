"""Image encoders: which one an IP-Adapter reads pictures by, and what people call those that most adapters need."""

from __future__ import annotations

from typing import Final, NamedTuple

from shared.models.details import Details
from shared.models.kinds import KINDS


class Wanted(NamedTuple):
    """An image encoder that is not here: what it is called, and where its file should lie."""

    name: str
    place: str


class _Known(NamedTuple):
    name: str  # of the published file's folder
    projected: int  # widths of its two kinds of features
    hidden: int


_KNOWN: Final = (
    _Known("CLIP-ViT-H-14-laion2B-s32B-b79K", projected=1024, hidden=1280),
    _Known("CLIP-ViT-bigG-14-laion2B-39B-b160k", projected=1280, hidden=1664),
    _Known("clip-vit-large-patch14", projected=768, hidden=1024),
)
_FILE: Final = "model.safetensors"
_FOLDER: Final = f"the folder {KINDS['image-encoder'].folder} of the models folder (FARM_MODELS)"


def fits(encoder: Details, adapter: Details) -> bool:
    """Return whether an encoder makes the features that an adapter reads."""
    made = {"projected": encoder.projected, "hidden": encoder.hidden}
    return adapter.image_width is not None and made.get(adapter.image_features or "") == adapter.image_width


def wanted(adapter: Details) -> Wanted:
    """Return the encoder that an adapter reads pictures by, by the name that people know if there is one."""
    features, width = adapter.image_features or "", adapter.image_width
    if name := next((one.name for one in _KNOWN if getattr(one, features, None) == width), ""):
        return Wanted(name, f"{name} ({_FILE}) in {_FOLDER}")
    described = f"with {features} features of width {width}"
    return Wanted(described, f"an image encoder {described} in {_FOLDER}")
