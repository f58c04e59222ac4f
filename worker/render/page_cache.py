"""Tells whether a file's content is in the machine's memory already, so that reading it needs no disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Final

from shared.models import regular_files

_PROBES: Final = 64  # places of a file that are tried
_PROBE_BYTES: Final = 4096
_MOST_FILES: Final = 256  # of a folder
_ENOUGH: Final = 0.9  # of the probes: the missing rest takes little time
_GOLDEN: Final = 0.618034  # of the way from one probe to the next: multiples of it fall between one another
_looks = count()


def holds(path: Path) -> bool:
    """Return whether the file at `path`, or those of a folder, can be read without a disk, by a sample.

    False if the file system cannot tell.
    """
    files = islice((one for one in path.rglob("*") if one.is_file()), _MOST_FILES) if path.is_dir() else [path]
    probes = [hit for file in files for hit in _probes(file)]
    return bool(probes) and sum(probes) >= _ENOUGH * len(probes)


def _probes(path: Path) -> Iterator[bool]:
    """Yield for places spread over a file whether they are in memory.

    A kernel may begin to read what it is asked for and lacks. So it is told to read no more than that, and each look is
    at other places than the one before.
    """
    buffer = [bytearray(_PROBE_BYTES)]
    shift = next(_looks) * _GOLDEN % 1
    try:
        with regular_files.opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for probe in range(_PROBES):
                yield _is_there(file.fileno(), int(size * (probe + shift) / _PROBES), buffer)
    except OSError:
        yield False


def _is_there(file: int, offset: int, buffer: list[bytearray]) -> bool:
    try:
        os.preadv(file, buffer, offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    return True
