"""Where a checkpoint lies on this machine, and whether it is still the file that the catalogue knows."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import catalogue, scan
from shared.database import Sessions, transact
from shared.errors import ModelFileAway, ModelFileError
from shared.tables import ModelFile


@dataclass(frozen=True)
class Found:
    """A checkpoint's file or folder, as the catalogue describes it."""

    name: str
    path: Path
    bytes: int


class ModelFiles:
    """The models folder by SHA-256."""

    def __init__(self, sessions: Sessions, models: Path) -> None:
        self._sessions = sessions
        self._models = models
        self._lock = Lock()  # many slots meet a touched file at a time: one of them hashes it
        self._hashed: dict[tuple[Path, tuple[int, int]], str] = {}  # (path, fingerprint) -> SHA-256

    def find(self, sha256: str) -> Found:
        """Return the file with this hash; one that was only touched since the scan is hashed here.

        Raises ModelFileAway when the catalogue has it and this machine does not, or when it was found gone only lately:
        another machine may find it again. Else ModelFileError.
        """
        rows, may_return = transact(self._sessions, lambda session: _rows(session, sha256))
        for row in rows:
            if _fingerprint(self._models / row.path) == (row.size, row.mtime_ns):
                return self._found(row)
        for row in rows:
            if self._sha256(self._models / row.path) == sha256:
                return self._found(row)
        names = ", ".join(row.path for row in rows) or f"the checkpoint {sha256[:10]}"
        kind = ModelFileAway if may_return else ModelFileError
        raise kind(f"{names} is not in {self._models} of {socket.gethostname()} as it was when the job was submitted")

    def _found(self, row: ModelFile) -> Found:
        return Found(row.name, self._models / row.path, row.size)

    def _sha256(self, path: Path) -> str | None:
        """Return the hash of what lies at `path` now, computed once as long as it stays as it is."""
        fingerprint = _fingerprint(path)
        if fingerprint is None:
            return None
        key = (path, fingerprint)
        try:
            with self._lock:
                return self._hashed.get(key) or self._hashed.setdefault(key, scan.sha256(path))
        except OSError:
            return None


def _rows(session: Session, sha256: str) -> tuple[list[ModelFile], bool]:
    """Return the files of this hash, and whether one of them may be here, or be back, before long."""
    may_return = ModelFile.usable | ((ModelFile.reason == catalogue.GONE) & catalogue.is_lately())
    query = select(ModelFile, may_return).where(ModelFile.sha256 == sha256).order_by(ModelFile.path)
    found = session.execute(query).all()
    return [row for row, _ in found], any(may for _, may in found)


def _fingerprint(path: Path) -> tuple[int, int] | None:
    try:
        return scan.fingerprint(path)
    except OSError:
        return None
