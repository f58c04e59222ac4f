"""Keeps the catalogue equal to the models folders: a scan now and then, and one whenever somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.orm import Session

from shared.db.sessions import transact
from shared.errors import NotConfined, Unavailable
from shared.models import first_scan, recording
from shared.models.inspection import Scanned
from shared.models.scan import scan, scan_lock
from worker.context import Worker
from worker.render.inspector import Inspector

_SOON_SECONDS: Final = 1.0  # while another one scans, or files wait to be hashed

log = structlog.get_logger(__name__)


class Scanner:
    """Scans every `rescan_seconds`; a file is hashed once in its life and inspected once a process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._known: Sequence[Scanned] = ()
        self._inspector = Inspector()

    def run_once(self) -> float | None:
        """Record which files of the models folder are new, changed or gone.

        Return in how many seconds to go on, if that is soon, because users wait for files that are not scanned yet.
        """
        sessions, models = self._worker.sessions, self._worker.settings.models
        empty: list[Path] = []
        try:
            with scan_lock(models) as is_sole:
                if not is_sole:  # another worker of this machine scans, for this farm or for another
                    return _SOON_SECONDS
                before = transact(sessions, recording.recorded)
                known = [*recording.remembered(before), *self._known]
                unhashed: list[Path] = []
                seconds = self._worker.settings.rescan_seconds
                seen = scan(
                    models,
                    known,
                    self._inspector,
                    locate=self._inspector.places,
                    hash_seconds=seconds,
                    on_left=unhashed.append,
                    on_empty=empty.append,
                )
                record = partial(recording.record, scanned=seen, before=before, may_be_away=bool(empty))
                changed = transact(sessions, partial(_record, record=record, is_whole=not unhashed))
        except NotConfined as error:
            log.warning("models folders not scanned", folders=str(models), reason=str(error))
            return None
        except OSError as error:
            log.warning("models folders not scanned", folders=str(models), reason=str(error))
            with suppress(Unavailable):
                transact(sessions, first_scan.record_scan)  # so that nobody waits for files
            return None
        except Unavailable:  # the heartbeat logs it; the next scan may succeed
            return None
        finally:
            self._inspector.close()
        self._known = seen
        if changed:
            log.info("catalogue changed", worker=self._worker.id, files=changed, checkpoints=len(seen))
        return _SOON_SECONDS if unhashed else None


def _record(session: Session, record: Callable[[Session], int], *, is_whole: bool) -> int:
    """Record what a scan saw, and whether that was everything; return how many rows of the catalogue changed."""
    if is_whole:
        first_scan.record_scan(session)
    return record(session)
