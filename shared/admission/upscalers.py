"""The upscaler that parameters name: a way without a model file, or a file of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from shared.errors import FieldError, Refused
from shared.models.catalogue import Catalogue, Entry
from shared.params import upscalers
from shared.params.upscalers import UPSCALERS
from shared.suggest import nearest
from shared.wording import LONGEST, choices


class NamedUpscaler(NamedTuple):
    """The file of an upscaler, and the problem of a name that means none; neither, if it needs no file."""

    file: Entry | None = None
    problem: FieldError | None = None


def named_upscaler(
    catalogue: Catalogue, text: str, field: str, without_file: Sequence[str] = UPSCALERS
) -> NamedUpscaler:
    """Return what the text in `field` means: a file, or one of the ways `without_file`."""
    if upscalers.spelled(text) in without_file:
        return NamedUpscaler()
    offered = partial(_offered, catalogue, text, without_file)
    if not text.strip():
        return NamedUpscaler(problem=FieldError(field, "is empty", offered()))
    try:
        return NamedUpscaler(catalogue.resolve(text, "upscaler"))
    except Refused as refused:
        return NamedUpscaler(problem=FieldError(field, refused.fields[0].message, offered()))


def _offered(catalogue: Catalogue, text: str, without_file: Sequence[str]) -> str:
    """Return the nearest names in words, those of files as titles; all names if none is near."""
    titles = {file.name: file.title for file in catalogue.usable("upscaler")}
    known = [*without_file, *titles]
    return choices([titles.get(name, name) for name in nearest(text[:LONGEST], known) or known])
