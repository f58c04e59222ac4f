"""The memory of this machine, and the parts of it that keep models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from shared.settings import Settings

_CACHE_SHARE: Final = 4  # one part in so many keeps checkpoints, unless FARM_HOST_CACHE_BYTES says otherwise
_RESIDENT_SHARE: Final = 2  # one part in so many keeps models on the CPU, unless FARM_RESIDENT_BYTES says otherwise
_GROUPS: Final = Path("/sys/fs/cgroup")


def cache_bytes(settings: Settings) -> int:
    """Return how much of this machine's memory keeps converted checkpoints."""
    bound = settings.host_cache_bytes
    return total_bytes() // _CACHE_SHARE if bound is None else bound


def resident_bytes(settings: Settings) -> int:
    """Return how much of this machine's memory keeps the models of workers on its CPU."""
    bound = settings.resident_bytes
    return total_bytes() // _RESIDENT_SHARE if bound is None else bound


def total_bytes(groups: Path = _GROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the memory that this process may use: the machine's, or less if its container has a bound."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_bounds(groups, own)])


def own_bytes(status: Path = Path("/proc/self/status")) -> int:
    """Return the memory that this process holds, without mapped files."""
    lines = status.read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def _bounds(groups: Path, own: Path) -> list[int]:
    """Return the bounds of the control groups that this process is in, as far as they are visible."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    place = next((line.split(":", 2)[2] for line in lines if line.startswith("0::")), "/")
    folder = groups / place.lstrip("/")
    inside = [one for one in (folder, *folder.parents) if one.is_relative_to(groups)]
    files = [*(one / "memory.max" for one in (*inside, groups)), groups / "memory" / "memory.limit_in_bytes"]
    return [int(text) for file in files if (text := _text(file)).isdecimal()]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:  # without a file there is no bound, as with "max"
        return ""
