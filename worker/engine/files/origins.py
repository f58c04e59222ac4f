"""Where the bytes of a weight lie: in which file, and where in it, also of a weight that is a view of a stored one.

A weight that is read on the meta device carries a mark. Views of it, which readers make to rename, split, reshape or
turn it, lead back to the mark; a weight that was computed has none.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from torch import Tensor

from shared.models import regular_files

_HEAD: Final = struct.Struct("<Q")
_MARK: Final = "stored_as"


class Mark(NamedTuple):
    """The name of a weight in its file."""

    file: Path
    name: str


class Stretch(NamedTuple):
    """The bytes of one weight in a file. If `columns` are given, they are a matrix that the weight has turned."""

    file: str  # relative to the checkpoint's folder; "" for a single file
    start: int
    length: int
    columns: int = 0
    item_bytes: int = 0


class Origins:
    """The places of the weights of one checkpoint, a file or a folder at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts: dict[Path, Mapping[str, int]] = {}

    def stretch(self, weight: Tensor) -> Stretch | None:
        """Return where the bytes of `weight` lie; None if they do not lie in a file as one stretch."""
        base = weight if weight._base is None else weight._base  # noqa: SLF001 - a view's origin has no other name
        mark: Mark | None = getattr(base, _MARK, None)
        if mark is None:
            return None
        item = weight.dtype.itemsize
        file = mark.file.relative_to(self._path).as_posix() if mark.file != self._path else ""
        if mark.file not in self._starts:
            self._starts[mark.file] = starts(mark.file)
        start = self._starts[mark.file][mark.name] + int(weight.storage_offset()) * item
        if weight.is_contiguous():
            return Stretch(file, start, weight.numel() * item)
        if weight.dim() == 2 and weight.T.is_contiguous():
            return Stretch(file, start, weight.numel() * item, weight.shape[0], item)
        return None


def marked(weight: Tensor, file: Path, name: str) -> Tensor:
    """Return `weight`, which leads back to its file from now on."""
    setattr(weight, _MARK, Mark(file, name))
    return weight


def starts(file: Path) -> Mapping[str, int]:
    """Return where the bytes of each weight of a safetensors file begin."""
    with regular_files.opened(file) as opened:
        size = _HEAD.unpack(opened.read(_HEAD.size))[0]
        header = json.loads(opened.read(size))
    begin = _HEAD.size + size
    return {name: begin + one["data_offsets"][0] for name, one in header.items() if name != "__metadata__"}
