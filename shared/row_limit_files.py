"""Files in FARM_HOME where the workers of a machine keep how many rows a call of each layer may hold (`RowLimits`).

One file for each processor, version of PyTorch and number of threads. Its first line names these, and each further line
holds one measured limit. The workers of a machine append to the same file. A line that cannot be read is skipped: its
limit is measured again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from shared.quantities import counted

_MOST_BYTES: Final = 4 * 2**20
_MOST_ROWS: Final = 2**16


@dataclass(frozen=True)
class Processor:
    """The properties that decide how calls of a shape round."""

    name: str
    threads: int
    torch: str

    def __str__(self) -> str:
        return f"{self.name}, {counted(self.threads, 'thread')}, PyTorch {self.torch}"


class StoredLimit(NamedTuple):
    """The measured limit of one shape of calls: every count of rows up to `rows` gives a row the same bits."""

    rows: int
    is_final: bool = False  # one row more gives other bits
    is_lone_alike: bool | None = None  # whether a row alone has the bits that it has in a pair; None: not measured

    def merged(self, other: StoredLimit) -> StoredLimit:
        """Return what both know; if they contradict each other, the safer of the two."""
        final = [limit.rows for limit in (self, other) if limit.is_final]
        alike = [limit.is_lone_alike for limit in (self, other) if limit.is_lone_alike is not None]
        return StoredLimit(min(final, default=max(self.rows, other.rows)), bool(final), min(alike) if alike else None)


class Contents(NamedTuple):
    """A file's processor (None if it cannot be read), the limit of each shape, and its number of lines."""

    processor: Processor | None
    limits: dict[str, StoredLimit]
    lines: int  # readable or not


def folder(home: Path) -> Path:
    """Return where the farm at `home` keeps these files."""
    return home / "cache" / "portions"


def path(home: Path, processor: Processor) -> Path:
    """Return the file of `processor`."""
    digest = sha256(json.dumps(asdict(processor), sort_keys=True).encode()).hexdigest()
    return folder(home) / f"{digest[:16]}.jsonl"


def opened(file: Path, processor: Processor) -> dict[str, StoredLimit]:
    """Return the limits in the file of `processor`, ready for `add`; unreadable or repeated lines are removed first."""
    contents = read(file)
    if contents.processor != processor or contents.lines != 1 + len(contents.limits):
        write(file, processor, contents.limits)
    return contents.limits


def read(file: Path) -> Contents:
    """Return what can be read in `file`; nothing if there is no file."""
    try:
        with file.open("rb") as stream:
            lines = stream.read(_MOST_BYTES).decode(errors="replace").splitlines()
    except OSError:
        lines = []
    limits: dict[str, StoredLimit] = {}
    for shape, limit in filter(None, map(_parsed, lines)):
        limits[shape] = limit.merged(limits[shape]) if shape in limits else limit
    return Contents(_processor(lines[0]) if lines else None, limits, len(lines))


def write(file: Path, processor: Processor, limits: Mapping[str, StoredLimit]) -> None:
    """Replace `file`, whole or not at all. Nothing is kept if the folder cannot be written."""
    new = file.with_suffix(f".{os.getpid()}.new")
    lines = [json.dumps(asdict(processor)), *(_line(shape, limit) for shape, limit in limits.items())]
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        new.replace(file)


def add(file: Path, shape: str, limit: StoredLimit) -> None:
    """Append a limit to `file` in one write, so that other workers can append at the same time."""
    with suppress(OSError):
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, f"{_line(shape, limit)}\n".encode())
        finally:
            os.close(descriptor)


def all_at(home: Path) -> Iterable[Contents]:
    """Return the contents of every file at `home` whose processor can be read."""
    contents = map(read, sorted(folder(home).glob("*.jsonl")))
    return [one for one in contents if one.processor]


def _line(shape: str, limit: StoredLimit) -> str:
    return json.dumps({"shape": shape, **limit._asdict()})


def _parsed(line: str) -> tuple[str, StoredLimit] | None:
    match _object(line):
        case {
            "shape": str(shape),
            "rows": int(rows),
            "is_final": bool(is_final),
            "is_lone_alike": bool() | None as alike,
        }:
            return (shape, StoredLimit(rows, is_final, alike)) if 1 <= rows <= _MOST_ROWS else None
    return None


def _processor(line: str) -> Processor | None:
    match _object(line):
        case {"name": str(name), "threads": int(threads), "torch": str(torch)}:
            return Processor(name, threads, torch)
    return None


def _object(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
