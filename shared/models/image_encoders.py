"""Image encoders: which one an IP-Adapter reads pictures by, and what people call those that most adapters need."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final, NamedTuple

from shared.models.catalogue import Entry
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
    words: tuple[str, ...]  # in the names that people give to its copies, in lower case
    sha256: str = ""  # of the file beside the adapters of h94/IP-Adapter, whose name says nothing


_KNOWN: Final = (
    _Known(
        "CLIP-ViT-H-14-laion2B-s32B-b79K",
        projected=1024,
        hidden=1280,
        words=("vit-h", "laion2b"),
        sha256="6ca9667da1ca9e0b0f75e46bb030f7e011f44f86cbfb8d5a36590fcd7507b030",
    ),
    _Known(
        "CLIP-ViT-bigG-14-laion2B-39B-b160k",
        projected=1280,
        hidden=1664,
        words=("bigg",),
        sha256="657723e09f46a7c3957df651601029f66b1748afb12b419816330f16ed45d64d",
    ),
    _Known("clip-vit-large-patch14", projected=768, hidden=1024, words=("vit-large-patch14",)),
)
_FILE: Final = "model.safetensors"
_FOLDER: Final = f"the folder {KINDS['image-encoder'].folder} of the models folder (FARM_MODELS)"


def fits(encoder: Details, adapter: Details) -> bool:
    """Return whether an encoder makes the features that an adapter reads."""
    return adapter.image_width is not None and width(encoder, adapter) == adapter.image_width


def width(encoder: Details, adapter: Details) -> int | None:
    """Return the width of the encoder's features of the kind that an adapter reads."""
    made = {"projected": encoder.projected, "hidden": encoder.hidden}
    return made.get(adapter.image_features or "")


def rank(encoder: Entry, adapter: Details) -> int:
    """Return 0 for the well-known encoder of an adapter's width, 1 for one with a name like its, 2 for any other.

    Encoders of equal widths may have been trained otherwise, and make other pictures.
    """
    known = _known(adapter)
    if known is None:
        return 2
    path = PurePosixPath(encoder.path.casefold())
    if known.sha256 in {encoder.sha256, encoder.weights_sha256} or known.name.casefold() in path.with_suffix("").parts:
        return 0
    return 1 if all(word in str(path) for word in known.words) else 2


def wanted(adapter: Details) -> Wanted:
    """Return the encoder that an adapter reads pictures by, by the name that people know if there is one."""
    if known := _known(adapter):
        return Wanted(known.name, f"{known.name} ({_FILE}) in {_FOLDER}")
    described = f"with {adapter.image_features} features of width {adapter.image_width}"
    return Wanted(described, f"an image encoder {described} in {_FOLDER}")


def _known(adapter: Details) -> _Known | None:
    features, width = adapter.image_features or "", adapter.image_width
    return next((one for one in _KNOWN if getattr(one, features, None) == width), None)
