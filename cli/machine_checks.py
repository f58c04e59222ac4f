"""What `farm doctor` asks of the machine."""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import subprocess
import sys
from functools import cache
from typing import Any, Final, cast

from cli.embedded import binaries, namespace
from cli.findings import Finding, bad, fine, remark
from shared import row_limit_files
from shared.errors import LauncherError
from shared.quantities import data_size
from shared.settings import Settings

_LOW_BYTES: Final = 2 * 2**30
_TORCH_SECONDS: Final = 120


def python(_: Settings) -> Finding:
    """Is it a Python that the farm is tested on?"""
    text = f"{platform.python_version()} ({sys.executable})"
    if (3, 11) <= sys.version_info[:2] <= (3, 14):
        return fine(text)
    return bad(text, "Take Python 3.11 to 3.14: `make clean`, then `make venv PYTHON=/path/to/python3.14`.")


def torch(settings: Settings) -> Finding:
    """Can PyTorch be imported? Asked of another process: this one never loads it."""
    answer = _ask_machine(settings.gpus)
    if isinstance(answer, str):
        return bad(answer, "`make venv` installs PyTorch; docs/install.md says how to choose its build.")
    return fine(f"{answer['version']} ({'CUDA ' + answer['cuda'] if answer['cuda'] else 'CPU build'})")


def cards(settings: Settings) -> Finding:
    """Which cards do workers of this machine serve, can PyTorch use any, and is one missing?"""
    answer = _ask_machine(settings.gpus)
    if isinstance(answer, str):
        return remark("Not known without PyTorch.")
    if answer["error"]:
        return bad(answer["error"], "Workers do not start here until that is mended.")
    names = ", ".join(answer["cards"])
    if not names:
        return remark(f"No card; the farm renders on the CPU ({os.cpu_count()} cores).")
    if answer["why"]:
        return bad(f"{names}, but PyTorch can use none: {answer['why']}.", "Mend that, or set FARM_GPUS=cpu.")
    if answer["missing"]:
        advice = "Restart the machine; `dmesg` tells more."
        return bad(f"{names}, and of others nvidia-smi says: {answer['missing']}", advice)
    return fine(names)


def programs(settings: Settings) -> Finding:
    """Are the programs of the embedded servers there?"""
    if settings.database_url and settings.redis_url:
        return fine("Not needed: FARM_DATABASE_URL and FARM_REDIS_URL name servers.")
    try:
        found = [] if settings.database_url else [binaries.postgres()[1]]
        found += [] if settings.redis_url else [binaries.redis()]
    except LauncherError as error:
        return bad(str(error), "`make venv` installs both packages.")
    return fine(", ".join(map(str, found)))


def namespace_(settings: Settings) -> Finding:
    """Can PostgreSQL run as a user that it accepts?"""
    if settings.database_url:
        return fine("Not needed: FARM_DATABASE_URL names a server.")
    try:
        prefix = namespace.prefix()
    except LauncherError as error:
        return bad(str(error), "`useradd farm`, then run the farm as that user; or set FARM_DATABASE_URL.")
    return fine("PostgreSQL runs in a user namespace." if prefix else "PostgreSQL runs as this user.")


def home(settings: Settings) -> Finding:
    """Is FARM_HOME ours, and closed to others?"""
    folder = settings.home
    if not folder.exists():
        return remark(f"{folder} is not there yet; `farm up` makes it.")
    found = folder.stat()
    if found.st_uid != os.geteuid():
        return bad(f"{folder} belongs to user {found.st_uid}.", f"Run as that user, set FARM_HOME, or chown {folder}.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        return bad(f"Other users can look into {folder}.", f"chmod 700 {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        return bad(f"{folder} cannot be written.", f"chmod 700 {folder}")
    return fine(str(folder))


def portions(settings: Settings) -> Finding:
    """How many pictures' rows may share a call on this processor without a change, as its workers measured?"""
    measured = [contents for contents in row_limit_files.all_at(settings.home) if contents.limits]
    if not measured:
        return fine("Not measured yet: a worker on the CPU measures them at its first picture.")
    return fine("; ".join(map(_row_limits, measured)))


def disk(settings: Settings) -> Finding:
    """Is there room for the database and for pictures?"""
    folder = next(place for place in (settings.home, *settings.home.parents) if place.exists())
    free = shutil.disk_usage(folder).free
    text = f"{data_size(free)} free at {folder}"
    return fine(text) if free >= _LOW_BYTES else bad(text, "Free some space, delete jobs, or set FARM_STORAGE_URL.")


def _row_limits(contents: row_limit_files.Contents) -> str:
    rows = [limit.rows for limit in contents.limits.values()]
    fewer = [limit.rows for limit in contents.limits.values() if limit.is_final]
    least = f", {len(fewer)} of them fewer, {min(fewer)} at least" if fewer else ""
    return f"{contents.processor}: a call takes up to {max(rows)} rows ({len(rows)} shapes of layers measured{least})"


@cache
def _ask_machine(gpus: str) -> dict[str, Any] | str:
    """Return what PyTorch and nvidia-smi say, or why PyTorch cannot."""
    command = [sys.executable, "-m", "worker.machine", gpus]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TORCH_SECONDS, check=True)  # noqa: S603
    except subprocess.TimeoutExpired:
        return f"Importing PyTorch took more than {_TORCH_SECONDS} s."
    except subprocess.CalledProcessError as error:
        return str((error.stderr.strip().splitlines() or ["PyTorch cannot be imported."])[-1])
    return cast("dict[str, Any]", json.loads(done.stdout.splitlines()[-1]))
