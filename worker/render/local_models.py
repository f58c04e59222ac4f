"""The model files of this machine, found by their hash and checked against the catalogue."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.sessions import Sessions, transact
from shared.db.tables import ModelFile
from shared.errors import ModelFileAway, ModelFileError, NotConfined, NotUnderstood, Refused
from shared.models import catalogue, components, inspection, recording, scan
from shared.models.architectures import ARCHITECTURES
from shared.models.catalogue import Catalogue
from shared.models.components import Components
from shared.models.folders import ModelFolders
from shared.models.hashing import sha256
from shared.models.inspection import Inspection
from shared.models.kinds import KINDS, Kind
from shared.models.model_set import ModelSet
from shared.models.scan import Fingerprint, Inspect
from shared.params.codecs import BUILT_IN_VAE
from shared.params.fields import AUTOMATIC_VAE
from shared.params.render import RenderParams
from worker.render.inspector import Inspector

_ARCHITECTURES: Final = frozenset({*ARCHITECTURES, None})
_JOBS: Final = 256  # of an older version, whose model sets are remembered


@dataclass(frozen=True)
class Found:
    """A model's file or folder, as the catalogue describes it."""

    name: str
    sha256: str  # its identity, even if it was found by the hash of its weights
    path: Path
    bytes: int
    fingerprint: Fingerprint  # as it was found
    components: Components = field(default_factory=dict)  # its networks, as far as a scan has looked into it


class LocalModels:
    """The model files of this machine, by SHA-256."""

    def __init__(self, sessions: Sessions, models: ModelFolders, inspect: Inspect | None = None) -> None:
        self._sessions = sessions
        self._models = models
        self._inspect = inspect or _confined
        self._lock = Lock()  # many slots meet a touched file at a time: one of them hashes it
        self._hashed: dict[tuple[Path, Fingerprint], str | None] = {}  # (path, fingerprint) -> SHA-256
        self._resolve_once = lru_cache(_JOBS)(self._resolve)

    def find(self, sha256: str, kind: Kind = "checkpoint") -> Found:
        """Return the file of this hash; one that was only touched since the scan is hashed here. People see the kind.

        A hash that no file has finds the one identity with these weights, as the version before named it. Raises
        ModelFileAway if the catalogue has the file and this machine does not, or if it was lost only lately, because
        another machine may find it; NotUnderstood if only a newer version can load it; else ModelFileError.
        """
        rows, may_return = transact(self._sessions, partial(_rows, sha256=sha256))
        _check_architecture(rows)
        sound = [row for row in rows if row.usable or row.reason == catalogue.GONE]
        if rows and not sound:
            raise ModelFileError(f"{rows[0].path} cannot be used: {rows[0].reason}")
        places = [(row, path) for row in sound for path in self._models.places(row.path)]
        present = [(row, path, now) for row, path in places if (now := _fingerprint(path))]
        for row, path, now in present:
            if now.is_that_of(row):
                return _found(row, path, now)
        for row, path, now in present:
            if self._sha256(row, path, now) == row.sha256:
                return _found(row, path, now)
        names = ", ".join(row.path for row in rows) or f"the {KINDS[kind].label} {sha256[:10]}"
        here = f"{self._models} of {socket.gethostname()}"
        reason = f"{names} is not in {here} as it was when the job was submitted"
        raise ModelFileAway(reason, sha256) if may_return else ModelFileError(reason)

    def named_by(self, job_id: int, params: RenderParams, checkpoint: str) -> ModelSet:
        """Return the model set that parameters name, for a job without one, which an older version admitted.

        All images of the job here have the set of its first one. Raises ModelFileError if a name means no file that the
        farm knows, or more than one.
        """
        refiner = params.refiner.checkpoint if params.refiner else None
        hires = (params.hires.checkpoint or None) if params.hires else None
        return self._resolve_once(job_id, checkpoint, params.vae, refiner, hires)

    def _resolve(self, _job_id: int, checkpoint: str, vae: str, refiner: str | None, hires: str | None) -> ModelSet:
        known = transact(self._sessions, Catalogue.read)
        second = None if hires is None else _meant(known, hires, "checkpoint")
        return ModelSet(
            checkpoint=checkpoint,
            vae=_vae(known, vae, checkpoint),
            refiner=None if refiner is None else _meant(known, refiner, "checkpoint"),
            hires=second,
            hires_vae=None if second is None else _vae(known, vae, second),
        )

    def decoders(self) -> list[str]:
        """Return the SHA-256 of every tiny decoder that can be used, by name."""
        usable = transact(self._sessions, partial(Catalogue.read, kind="decoder")).usable("decoder")
        return list(dict.fromkeys(file.sha256 for file in usable if file.sha256))

    def forget_crashes(self, found: Found) -> None:
        """Forgive a file that was loaded the crashes of workers at it."""
        transact(self._sessions, partial(recording.forget_crashes, sha256=found.sha256))

    def require_unchanged(self, found: Found) -> None:
        """Raise ModelFileAway if a file is not as it was found any more."""
        if _fingerprint(found.path) != found.fingerprint:
            raise ModelFileAway(f"{found.path.name} changed while it was loaded", found.sha256)

    def _sha256(self, row: ModelFile, path: Path, now: Fingerprint) -> str | None:
        """Return the identity of a touched file, computed once until it changes; None: it has other weights."""
        try:
            with self._lock:
                if (path, now) not in self._hashed:
                    self._hashed[path, now] = self._identity(path, row.weights_sha256 or row.sha256)
                return self._hashed[path, now]
        except (OSError, NotConfined):
            return None

    def _identity(self, path: Path, expected: str | None) -> str | None:
        weights = sha256(path)
        if weights != expected:
            return None
        is_described = not path.is_dir() and path.with_suffix(".yaml").exists()
        return inspection.identity(weights, self._inspect(path).description) if is_described else weights


def _found(row: ModelFile, path: Path, now: Fingerprint) -> Found:
    networks = components.read(row.components, row.weights_sha256) or {}
    return Found(row.name, row.sha256 or "", path, row.size, now, networks)


def _check_architecture(rows: Sequence[ModelFile]) -> None:
    """Raise NotUnderstood for a file that only a newer version can load."""
    for row in rows:
        if row.usable and row.architecture not in _ARCHITECTURES:
            what = f"the architecture {row.architecture} of {row.name}"
            raise NotUnderstood(f"{row.name} is from a newer version of the farm: {what}", what)


def _meant(known: Catalogue, text: str, kind: Kind) -> str:
    """Return the SHA-256 of the file that parameters name, on any machine: `name [short hash]`."""
    files = known.meant(text, kind)
    hashes = {file.sha256 for file in files if file.usable} or {file.sha256 for file in files}
    if len(hashes) != 1 or not (sha256 := hashes.pop()):
        raise ModelFileError(f"{text} names no {kind} that the farm knows, or more than one")
    return sha256


def _vae(known: Catalogue, text: str, checkpoint: str) -> str | None:
    """Return the SHA-256 of the VAE that the parameter `vae` means for a checkpoint; None: the one built in."""
    if text not in {AUTOMATIC_VAE, BUILT_IN_VAE}:
        return _meant(known, text, "vae")
    found = (known.vae_for(text, copy) for copy in known.copies(checkpoint))
    try:
        return next((file.sha256 for file in found if file), None)
    except Refused as refused:
        raise ModelFileError(str(refused)) from refused


def _rows(session: Session, sha256: str) -> tuple[list[ModelFile], bool]:
    """Return the files of this hash, and whether one of them may be here, or be back, soon."""
    may_return = ModelFile.usable | ((ModelFile.reason == catalogue.GONE) & catalogue.is_lately())
    identity = catalogue.identity_of(session, sha256)
    query = select(ModelFile, may_return).where(ModelFile.sha256 == identity).order_by(ModelFile.path)
    found = session.execute(query).all()
    return [row for row, _ in found], any(may for _, may in found)


def _confined(path: Path) -> Inspection:
    """Inspect a file in a confined child, because a file that has changed since the scan may be anything."""
    inspector = Inspector()
    try:
        return inspector(path)
    finally:
        inspector.close()


def _fingerprint(path: Path) -> Fingerprint | None:
    try:
        return scan.fingerprint(path)
    except OSError:
        return None
