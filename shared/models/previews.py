"""Pictures that people keep beside model files to show what these are good for, under the names of other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from shared.models import regular_files
from shared.models.folders import ModelFolders

_ENDINGS: Final = ("png", "jpg", "jpeg", "webp")
_NAMES: Final = tuple(f"{stem}.{ending}" for stem in ("{}.preview", "{}") for ending in _ENDINGS)
"""What the picture of a file `{}` is called, the surest first."""

MOST_BYTES: Final = 16 * 2**20  # of a picture's file


def paths(models: ModelFolders, names: Iterable[str]) -> dict[str, Path]:
    """Return the picture of each file that has one beside it, by the file's name in the catalogue.

    Nothing is opened, and each folder is listed once. A folder that is not on this machine holds no pictures.
    """
    listed = cache(_listed)
    found = {name: _beside(models.places(name), listed) for name in names}
    return {name: picture for name, picture in found.items() if picture}


def read(picture: Path) -> bytes:
    """Return the bytes of a picture's file. Raises OSError if it is gone, too large or not a regular file."""
    with regular_files.opened(picture) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(f"{picture.name} is larger than {MOST_BYTES // 2**20} MiB")
    return data


def _beside(places: Iterable[Path], listed: Callable[[Path], frozenset[str]]) -> Path | None:
    path = next((path for path in places if path.name in listed(path.parent)), None)
    if path is None:
        return None
    stems = dict.fromkeys((path.stem, path.name))  # a folder is called by its whole name
    called = (name.format(stem) for stem in stems for name in _NAMES)
    return next((path.with_name(name) for name in called if name in listed(path.parent)), None)


def _listed(folder: Path) -> frozenset[str]:
    with suppress(OSError):
        return frozenset(path.name for path in folder.iterdir())
    return frozenset()
