"""How many rows a call of a layer may hold on a processor: what workers measured, as it is kept in FARM_HOME.

A file for each processor, version of PyTorch and number of threads: first whose it is, then a line for each finding.
The workers of a machine add to the same file. A line that cannot be read is passed over: what it said is measured
again.
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

_MOST_BYTES: Final = 4 * 2**20
_MOST_ROWS: Final = 2**16


@dataclass(frozen=True)
class Processor:
    """What decides how calls round, beside their shapes."""

    name: str
    threads: int
    torch: str

    def __str__(self) -> str:
        return f"{self.name}, {self.threads} thread{'s' * (self.threads != 1)}, PyTorch {self.torch}"


@dataclass(frozen=True)
class Portion:
    """What is known of the calls of one shape: every count of rows up to `rows` gives a row the same bits."""

    rows: int
    is_final: bool = False  # one row more gives others
    is_lone_alike: bool | None = None  # whether a row alone has the bits that it has in a pair; None: not known

    def and_also(self, other: Portion) -> Portion:
        """Return what both know; where they contradict each other, the more careful of the two."""
        final = [one.rows for one in (self, other) if one.is_final]
        alike = [one.is_lone_alike for one in (self, other) if one.is_lone_alike is not None]
        return Portion(min(final, default=max(self.rows, other.rows)), bool(final), min(alike) if alike else None)


class Findings(NamedTuple):
    """What a file holds: whose they are (None where that cannot be read), and a portion for each shape."""

    processor: Processor | None
    portions: dict[str, Portion]
    lines: int  # that the file has, readable or not


def folder(home: Path) -> Path:
    """Return where the farm at `home` keeps what its workers measured."""
    return home / "cache" / "portions"


def path(home: Path, processor: Processor) -> Path:
    """Return the file of `processor`."""
    digest = sha256(json.dumps(asdict(processor), sort_keys=True).encode()).hexdigest()
    return folder(home) / f"{digest[:16]}.jsonl"


def read(file: Path) -> Findings:
    """Return what can be read of `file`; nothing where it is not there."""
    try:
        with file.open("rb") as opened:
            lines = opened.read(_MOST_BYTES).decode(errors="replace").splitlines()
    except OSError:
        lines = []
    portions: dict[str, Portion] = {}
    for shape, portion in filter(None, map(_portion, lines)):
        portions[shape] = portion.and_also(portions[shape]) if shape in portions else portion
    return Findings(_processor(lines[0]) if lines else None, portions, len(lines))


def write(file: Path, processor: Processor, portions: Mapping[str, Portion]) -> None:
    """Replace `file`, whole or not at all. A folder that cannot be written keeps nothing: it is measured again."""
    fresh = file.with_suffix(f".{os.getpid()}.new")
    lines = [json.dumps(asdict(processor)), *(_line(*one) for one in portions.items())]
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        fresh.replace(file)


def add(file: Path, shape: str, portion: Portion) -> None:
    """Add a finding to `file`, in one write, so that other workers can add theirs at the same time."""
    with suppress(OSError):
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, f"{_line(shape, portion)}\n".encode())
        finally:
            os.close(descriptor)


def kept(home: Path) -> Iterable[Findings]:
    """Return what is kept at `home`, file by file; those whose processor cannot be read are left out."""
    found = map(read, sorted(folder(home).glob("*.jsonl")))
    return [one for one in found if one.processor]


def _line(shape: str, portion: Portion) -> str:
    return json.dumps({"shape": shape, **asdict(portion)})


def _portion(line: str) -> tuple[str, Portion] | None:
    match _object(line):
        case {
            "shape": str(shape),
            "rows": int(rows),
            "is_final": bool(is_final),
            "is_lone_alike": bool() | None as alike,
        }:
            return (shape, Portion(rows, is_final, alike)) if 1 <= rows <= _MOST_ROWS else None
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
