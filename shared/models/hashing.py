"""The hashes of a model file and of its networks, computed in one read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from shared.models import components, regular_files
from shared.models.components import Component, Place, Stretch

if TYPE_CHECKING:
    from hashlib import _Hash as Hash
    from io import BufferedReader

Hashes = dict[Stretch, bytes]

PARTS: Final = frozenset({".safetensors", ".bin", ".json", ".txt"})  # of a diffusers folder
_CHUNK_BYTES: Final = 2**20
LARGEST_MATRIX_BYTES: Final = 2**26  # that is turned; OpenCLIP's projection has 3 MB
_SMALL_BYTES: Final = 2**16  # that another thread would take longer to be given than to hash
_ITEMS: Final[dict[int, Literal["B", "H", "I", "Q"]]] = {
    1: "B",
    2: "H",
    4: "I",
    8: "Q",
}  # bytes of a number -> how `memoryview` calls it


def sha256(path: Path) -> str:
    """Return the hash of a file; of a diffusers folder, that of its parts' names and hashes in their order."""
    return hashed(path, {})[0]


def hashed(path: Path, places: Mapping[str, Place]) -> tuple[str, dict[str, Component]]:
    """Return the hash of a file or folder, as `sha256` does, and the networks that lie at `places` in it."""
    stretches = {stretch for place in places.values() for stretch in place.stretches or ()}
    hashes: Hashes = {}
    with ThreadPoolExecutor(1, "hashing") as beside:
        if path.is_dir():
            parts = {part: part.relative_to(path).as_posix() for part in parts_of(path)}
            lines = [
                f"{_file(part, [one for one in stretches if one.file == name], hashes, beside)}  {name}\n"
                for part, name in parts.items()
            ]
            listed = "".join(lines).encode(errors="surrogateescape")  # a name may be bytes that are not text
            whole = hashlib.sha256(listed).hexdigest()
        else:
            whole = _file(path, [one for one in stretches if not one.file], hashes, beside)
    return whole, {name: _component(place, hashes) for name, place in places.items()}


def parts_of(folder: Path) -> list[Path]:
    """Return the files of a diffusers folder that belong to the checkpoint."""
    return sorted(part for part in folder.rglob("*") if part.suffix in PARTS and part.is_file())


def _component(place: Place, hashes: Hashes) -> Component:
    if place.stretches is None or not hashes.keys() >= {*place.stretches}:
        return Component(None, place.stored)
    return Component(components.digest(place.form, [hashes[one] for one in place.stretches]), place.stored)


def _file(path: Path, stretches: Iterable[Stretch], hashes: Hashes, beside: ThreadPoolExecutor) -> str:
    """Return the hash of a file; add the hashes of `stretches` of it, unless they overlap or lie outside."""
    ordered = sorted(stretches, key=lambda stretch: (stretch.start, stretch.end))
    if any(before.end > after.start for before, after in pairwise(ordered)):
        ordered = []
    whole = hashlib.sha256()
    with regular_files.opened(path) as file:
        for stretch in ordered:
            for chunk in _chunks(file, stretch.start - file.tell()):
                whole.update(chunk)
            own = hashlib.sha256()
            if stretch.columns:
                if not _can_be_turned(stretch):  # its bytes as they lie may be those of another matrix
                    continue
                matrix = b"".join(_chunks(file, stretch.length))
                whole.update(matrix)
                if len(matrix) == stretch.length:
                    own.update(_turned(matrix, stretch))
            else:
                for chunk in _chunks(file, stretch.length):
                    _update_both(whole, own, chunk, beside)
            if file.tell() == stretch.end:  # else the file was cut off meanwhile
                hashes[stretch] = own.digest()
        for chunk in _chunks(file, None):
            whole.update(chunk)
    return whole.hexdigest()


def _update_both(whole: Hash, own: Hash, chunk: bytes, beside: ThreadPoolExecutor) -> None:
    """Hash a chunk twice; a large one on two processors at a time."""
    done = beside.submit(own.update, chunk) if len(chunk) > _SMALL_BYTES else None
    whole.update(chunk)
    if done:
        done.result()
    else:
        own.update(chunk)


def _chunks(file: BufferedReader, length: int | None) -> Iterator[bytes]:
    """Yield the next `length` bytes, or those that there are; None: all."""
    while length is None or length > 0:
        chunk = file.read(_CHUNK_BYTES if length is None else min(length, _CHUNK_BYTES))
        if not chunk:
            return
        length = None if length is None else length - len(chunk)
        yield chunk


def _can_be_turned(stretch: Stretch) -> bool:
    is_whole = stretch.item_bytes in _ITEMS and stretch.length % (stretch.item_bytes * stretch.columns) == 0
    return is_whole and stretch.length <= LARGEST_MATRIX_BYTES


def _turned(matrix: bytes, stretch: Stretch) -> bytes:
    """Return a matrix column by column."""
    numbers = memoryview(matrix).cast(_ITEMS[stretch.item_bytes])
    return b"".join(numbers[column :: stretch.columns].tobytes() for column in range(stretch.columns))
