"""Recording of scans, and of the files that crash the processes which load them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, case, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.tables import NOW, ModelFile
from shared.models import components, details
from shared.models.catalogue import GONE, is_lately
from shared.models.inspection import Inspection, Scanned

MOST_CRASHES: Final = 2  # of a file; a process may end once for another reason while it loads one
_CRASHED: Final = "reading it ended its process twice"
_AGAIN: Final = "replace the file, or touch it to have it tried again"
_REFRESHED: Final = timedelta(minutes=1)

Recorded = Mapping[str, Row[Any]]
"""Rows of the catalogue with all of their columns, as they were read, by the file's path."""


def recorded(session: Session) -> Recorded:
    """Return all that the catalogue holds now, also of files that are gone."""
    return _by_path(session, select(ModelFile.__table__))


def remembered(rows: Recorded) -> list[Scanned]:
    """Return the files as earlier scans recorded them, so that a new worker need not hash them again."""
    return [
        Scanned(
            file.path,
            file.name,
            file.size,
            file.mtime_ns,
            file.sha256,
            None,
            file.weights_sha256 or file.sha256,
            file.parts,
            components.read(file.components, file.weights_sha256),
        )
        for file in rows.values()
    ]


def record(
    session: Session, scanned: Sequence[Scanned], before: Recorded | None = None, *, may_be_away: bool = False
) -> int:
    """Bring the catalogue to what a scan saw, and return how many rows that changed.

    `before` is what the catalogue held when the scan began; default: what it holds now. Only the rows that the scan
    found changed are read again, and locked, so that a crash which was counted meanwhile stays counted.
    A file that the scan left to the next one, without an inspection, keeps its row. A file that is gone stays as
    unusable: its hash is remembered for when its disk is back, and jobs that name it learn why. A scan that saw nothing
    at all, or nothing in one of several folders (`may_be_away`), may have looked at a disk that is not mounted: it
    takes a file for gone only if no machine has seen it for five minutes.
    """
    known = recorded(session) if before is None else before
    looked_into = {seen.path: (seen, seen.inspection) for seen in scanned if seen.inspection}
    otherwise = {path for path, (seen, found) in looked_into.items() if not _is_recorded(known.get(path), seen, found)}
    rows = _locked_entries(session, otherwise)
    changed = [path for path in sorted(otherwise) if not _is_recorded(rows.get(path), *looked_into[path])]
    for path in changed:
        columns = _columns(*looked_into[path], rows.get(path))
        session.execute(
            insert(ModelFile)
            .values(**columns)
            .on_conflict_do_update(index_elements=[ModelFile.path], set_=columns | {"scanned_at": NOW})
        )
    here = {seen.path for seen in scanned}
    _refresh(session, here)
    return len(changed) + _mark_gone(session, here, may_be_away=may_be_away or not here)


def count_crash(session: Session, files: Iterable[str], reason: str) -> int:
    """Count the crash of a process that loaded the files of these SHA-256; return how many files there are.

    After the second crash they cannot be used until they change.
    """
    is_last = ModelFile.strikes + 1 >= MOST_CRASHES
    paths = _locked(session, ModelFile.sha256.in_(set(files)) & ModelFile.usable)
    session.execute(
        update(ModelFile)
        .where(ModelFile.path.in_(paths))
        .values(
            strikes=ModelFile.strikes + 1,
            usable=~is_last,
            reason=case((is_last, f"{_CRASHED}: {reason}; {_AGAIN}"), else_=ModelFile.reason),
        )
    )
    return len(paths)


def forget_crashes(session: Session, sha256: str) -> None:
    """Forget the crashes of a file that was loaded after all, on any machine, even if it was refused meanwhile."""
    is_refused = ModelFile.reason.startswith(_CRASHED)
    paths = _locked(session, (ModelFile.sha256 == sha256) & (ModelFile.strikes > 0) & (ModelFile.usable | is_refused))
    if paths:
        forgiven = update(ModelFile).where(ModelFile.path.in_(paths))
        session.execute(forgiven.values(strikes=0, usable=True, reason=None))


def _refresh(session: Session, here: set[str]) -> None:
    """Record once a minute that the files `here` were seen."""
    seen = ModelFile.path.in_(here) & ModelFile.reason.is_distinct_from(GONE)
    paths = _locked(session, seen & (ModelFile.scanned_at < func.now() - _REFRESHED))
    if paths:
        session.execute(update(ModelFile).where(ModelFile.path.in_(paths)).values(scanned_at=NOW))


def _mark_gone(session: Session, here: set[str], *, may_be_away: bool) -> int:
    gone = ModelFile.path.not_in(here) & ModelFile.reason.is_distinct_from(GONE)
    if may_be_away:
        gone &= ~is_lately()
    paths = _locked(session, gone)
    if paths:
        marked = update(ModelFile).where(ModelFile.path.in_(paths))
        # Without details, like any unusable file, so that the database can tell this version's word from that of a
        # version that could not see the file (revision 0022).
        session.execute(marked.values(usable=False, reason=GONE, details=None, scanned_at=NOW))
    return len(paths)


def _locked(session: Session, fits: ColumnElement[bool]) -> list[str]:
    """Lock the files that `fits` is true of, and return their paths. Ordered by path, so that no deadlock comes of it.

    `mark_dead` locks them while it holds a worker's row. A transaction that holds a file's row locks no other table.
    """
    return list(session.scalars(select(ModelFile.path).where(fits).order_by(ModelFile.path).with_for_update()).all())


def _locked_entries(session: Session, paths: Collection[str]) -> Recorded:
    """Lock the files of these paths, in their order, and return them as they are now."""
    if not paths:
        return {}
    files = select(ModelFile.__table__).where(ModelFile.path.in_(paths))
    return _by_path(session, files.order_by(ModelFile.path).with_for_update())


def _by_path(session: Session, files: Select[Any]) -> Recorded:
    return {file.path: file for file in session.execute(files)}


def _columns(seen: Scanned, inspection: Inspection, row: Row[Any] | None) -> dict[str, object]:
    """Return what a scan says about a file. Strikes stay with it as long as it stays as it is."""
    is_same = row is not None and row.sha256 == seen.sha256 and row.parts in (None, seen.parts)
    strikes = row.strikes if row and is_same else 0
    if strikes >= MOST_CRASHES:
        inspection = replace(inspection, reason=(row and row.reason != GONE and row.reason) or f"{_CRASHED}; {_AGAIN}")
    return {
        "weights_sha256": seen.weights or seen.sha256,
        "components": components.recorded(seen.components, seen.weights or seen.sha256),
        "details": details.recorded(inspection.details) if inspection.reason is None else None,
        "parts": seen.parts,
        "note": inspection.note,
        "has_vae": inspection.has_vae,
        "strikes": strikes,
        "path": seen.path,
        "name": seen.name,
        "kind": inspection.kind,
        "architecture": inspection.architecture,
        "sha256": seen.sha256,
        "size": seen.size,
        "mtime_ns": seen.mtime_ns,
        "native_size": inspection.native_size,
        "prediction": inspection.prediction,
        "usable": inspection.reason is None,
        "reason": inspection.reason,
    }


def _is_recorded(row: Row[Any] | None, seen: Scanned, inspection: Inspection) -> bool:
    columns = _columns(seen, inspection, row)
    return row is not None and all(getattr(row, name) == value for name, value in columns.items())
