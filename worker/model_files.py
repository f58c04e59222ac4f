"""Where a checkpoint lies on this machine, and whether it is still the file that the catalogue knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import scan
from shared.database import Sessions, transact
from shared.errors import ModelFileError
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

    def find(self, sha256: str) -> Found:
        """Return the file with this hash. Raises ModelFileError when it is gone or has changed since it was hashed."""
        rows = transact(self._sessions, lambda session: _rows(session, sha256))
        for row in rows:
            path = self._models / row.path
            if _fingerprint(path) == (row.size, row.mtime_ns):
                return Found(row.name, path, row.size)
        names = ", ".join(row.path for row in rows) or f"the checkpoint {sha256[:10]}"
        raise ModelFileError(f"{names} is not in {self._models} as it was when the job was submitted")


def _rows(session: Session, sha256: str) -> list[ModelFile]:
    return list(session.scalars(select(ModelFile).where(ModelFile.sha256 == sha256).order_by(ModelFile.path)))


def _fingerprint(path: Path) -> tuple[int, int] | None:
    try:
        return scan.fingerprint(path)
    except OSError:
        return None
