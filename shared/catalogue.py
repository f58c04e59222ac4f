"""The catalogue: which checkpoints lie in the models folder. A worker scans and records, the API reads.

A checkpoint is a `.safetensors` or `.ckpt` file (a `.yaml` of the same name belongs to it), or a diffusers folder,
which holds a `model_index.json`. Subfolders are searched, and links are followed, also out of the models folder:
people keep large files elsewhere, and who may write into that folder may choose its checkpoints. Hidden files are none
of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.errors import FieldError, Refused
from shared.nearest import nearest
from shared.tables import NOW, ModelFile, Worker

GONE: Final = "The file is gone."
_PATIENCE: Final = timedelta(minutes=5)  # in which a disk that is away on one machine may come back
_REFRESHED: Final = timedelta(minutes=1)
_TITLE: Final = re.compile(r"(?P<name>.+) \[(?P<hash>[0-9a-f]{10})\]")
_HASH: Final = re.compile(r"[0-9a-f]{8,64}")
_ANY: Final = (
    "a Stable Diffusion 1.x checkpoint in the models folder (FARM_MODELS), where workers look every few seconds"
)
_SHOWN: Final = 5  # names that a refusal offers when nothing is alike


@dataclass(frozen=True)
class Inspection:
    """What a look into a model file found; `reason` says why it cannot be used, for people."""

    kind: str
    architecture: str | None = None
    native_size: int | None = None  # pixels of a side
    reason: str | None = None


@dataclass(frozen=True)
class Scanned:
    """One file or diffusers folder as a scan saw it; without `inspection` if only an earlier scan looked into it."""

    path: str  # relative to the models folder
    name: str
    size: int
    mtime_ns: int
    sha256: str | None
    inspection: Inspection | None


def short_hash(sha256: str) -> str:
    """Return the ten characters by which people know a checkpoint."""
    return sha256[:10]


def title(file: ModelFile) -> str:
    """Return `name [short hash]`, as parameters hold it."""
    return f"{file.name} [{short_hash(file.sha256)}]" if file.sha256 else file.name


def entries(session: Session) -> list[ModelFile]:
    """Return what lies in the models folder, by name; usable or not."""
    return [file for file in _rows(session) if file.reason != GONE]


def remembered(session: Session) -> list[Scanned]:
    """Return what earlier scans recorded, so that a new worker need not hash it all again."""
    return [
        Scanned(file.path, file.name, file.size, file.mtime_ns, file.sha256, inspection=None) for file in _rows(session)
    ]


def record(session: Session, scanned: Sequence[Scanned]) -> int:
    """Bring the catalogue to what a scan saw, and return how many rows that changed.

    A file that the scan left to the next one, without an inspection, keeps its row.
    What is gone stays as unusable: its hash is remembered for when its disk is back, and jobs that name it learn why.
    A scan that saw nothing at all may have looked at a disk that is not mounted: it takes for gone only what no machine
    has seen for five minutes.
    """
    rows = {file.path: file for file in _rows(session)}
    looked_into = [(seen, seen.inspection) for seen in scanned if seen.inspection]
    fresh = sorted((_columns(*one) for one in looked_into), key=lambda columns: str(columns["path"]))
    changed = [columns for columns in fresh if not _is_recorded(rows.get(str(columns["path"])), columns)]
    for columns in changed:
        session.execute(
            insert(ModelFile)
            .values(**columns)
            .on_conflict_do_update(index_elements=[ModelFile.path], set_=columns | {"scanned_at": NOW})
        )
    here = {seen.path for seen in scanned}
    _refresh(session, here)
    return len(changed) + _mark_gone(session, here)


def is_lately() -> ColumnElement[bool]:
    """Tell of a model file whether it was last seen, or found gone, so short ago that its disk may only be away."""
    return ModelFile.scanned_at > func.now() - _PATIENCE


def _refresh(session: Session, here: set[str]) -> None:
    """Note that the files `here` were seen, once a minute."""
    seen = ModelFile.path.in_(here) & ModelFile.reason.is_distinct_from(GONE)
    is_old = ModelFile.scanned_at < func.now() - _REFRESHED
    session.execute(update(ModelFile).where(seen, is_old).values(scanned_at=NOW))


def _mark_gone(session: Session, here: set[str]) -> int:
    gone = ModelFile.path.not_in(here) & ModelFile.reason.is_distinct_from(GONE)
    if not here:
        gone &= ~is_lately()
    marked = update(ModelFile).where(gone).values(usable=False, reason=GONE, scanned_at=NOW)
    return len(session.scalars(marked.returning(ModelFile.path)).all())


def resolve(session: Session, text: str) -> ModelFile:
    """Return the usable checkpoint that `text` means: its name, file, path, hash or title, whatever the case.

    Empty means the first one by name. Raises Refused that names those most alike, or says why it cannot be used.
    """
    files = entries(session)
    usable = [file for file in files if file.usable]
    if usable and not text:
        return usable[0]
    found = [file for file in _rows(session) if _means(text.strip().casefold(), file)] if text else []
    fit = [file for file in found if file.usable]
    if len({file.sha256 for file in fit}) == 1:
        return fit[0]
    if fit:
        raise _refused(f"{text!r} names {len(fit)} checkpoints", fit)
    if found:
        raise _refused(f"{found[0].name} cannot be used: {found[0].reason}", usable)
    if not usable:
        raise _nothing_usable(session, files)
    alike = {name for file in usable for name in (file.name, title(file))}
    close = nearest(text, alike)
    raise _refused(
        f"There is no checkpoint {text[:80]!r}",
        [file for file in usable if {file.name, title(file)} & {*close}] or usable,
    )


def _means(text: str, file: ModelFile) -> bool:
    sha256 = file.sha256 or ""
    if titled := _TITLE.fullmatch(text):
        return short_hash(sha256) == titled["hash"]
    names = {file.name, file.path, file.path.rpartition("/")[2]}
    return text in {name.casefold() for name in names} or bool(_HASH.fullmatch(text) and sha256.startswith(text))


def _refused(message: str, accepted: Iterable[ModelFile]) -> Refused:
    titles = [title(file) for file in accepted][:_SHOWN]
    return Refused(message + ".", (FieldError("checkpoint", message, " or ".join(titles) or _ANY),))


def _nothing_usable(session: Session, files: Sequence[ModelFile]) -> Refused:
    """Return the refusal of a farm without checkpoints, which says what to do about it."""
    if files:
        what = f"{files[0].name} cannot be used: {files[0].reason}"
    elif session.scalar(select(Worker.id).limit(1)) is None:
        what = "no worker is alive to look for one; start one with `farm worker`"
    else:
        what = "none lies in the models folder, or the first look at it is not done"
    return _refused(f"The farm has no usable checkpoint yet: {what.removesuffix('.')}", [])


def _rows(session: Session) -> list[ModelFile]:
    rows = session.scalars(select(ModelFile)).all()
    return sorted(rows, key=lambda file: (file.name.casefold(), file.path))


def _columns(seen: Scanned, inspection: Inspection) -> dict[str, object]:
    return {
        "path": seen.path,
        "name": seen.name,
        "kind": inspection.kind,
        "architecture": inspection.architecture,
        "sha256": seen.sha256,
        "size": seen.size,
        "mtime_ns": seen.mtime_ns,
        "native_size": inspection.native_size,
        "usable": inspection.reason is None,
        "reason": inspection.reason,
    }


def _is_recorded(row: ModelFile | None, columns: dict[str, object]) -> bool:
    return row is not None and all(getattr(row, name) == value for name, value in columns.items())
