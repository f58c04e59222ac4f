"""Where the embedded servers of a home are reached: sockets whose paths follow from the home alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote

DATABASE: Final = "farm"
"""Name of the embedded database, and of its one user."""
PORT: Final = 5432
"""Only a part of the socket's name, yet named everywhere: a PGPORT in somebody's environment must not change it."""

_TMP: Final = Path("/tmp")  # noqa: S108 - fixed, not TMPDIR: two shells of one person must find the same sockets
_LONGEST: Final = 100  # bytes of a socket's path; the kernel takes 107


def socket_folder(home: Path) -> Path:
    """Return the folder of the sockets: in `home`, or where its path cannot be one's, in the temp folder.

    It is too long then, or has a comma, which PostgreSQL takes for the end of the path.
    """
    folder = home / "run"
    if len(os.fsencode(postgres_socket(folder))) <= _LONGEST and "," not in str(folder):
        return folder
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return _TMP / f"stepfarm-{os.geteuid()}-{digest}"


def postgres_socket(folder: Path) -> Path:
    """Return the socket that PostgreSQL opens in `folder`."""
    return folder / f".s.PGSQL.{PORT}"


def redis_socket(folder: Path) -> Path:
    """Return the socket that Redis opens in `folder`."""
    return folder / "redis.sock"


def database_url(home: Path, database: str = DATABASE) -> str:
    """Return the SQLAlchemy URL of a database of the embedded PostgreSQL."""
    folder = quote(str(socket_folder(home)), safe="/")
    return f"postgresql+psycopg://{DATABASE}@/{database}?host={folder}&port={PORT}"


def redis_url(home: Path) -> str:
    """Return the URL of the embedded Redis, in the form of redis-py."""
    return f"unix://{quote(str(redis_socket(socket_folder(home))), safe='/')}"
