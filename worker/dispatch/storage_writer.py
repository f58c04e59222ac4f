"""Stores finished pictures. While the storage takes none, this worker takes no new images.

A finished picture waits in its slot, as bytes, until the storage takes it, so a worker holds at most one for each slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock
from typing import Final

import structlog

from shared.errors import STORAGE_AWAY, Cancelled, StorageAway, StorageError
from shared.queue.claim import Claim
from shared.waiting.backoff import Backoff
from worker.context import Worker
from worker.in_flight import Cancellation
from worker.render.outputs import Output

log = structlog.get_logger(__name__)

SECONDS: Final = 1.0  # between two checks of a storage that is away, unless a picture waits and tries it
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 2.0
_TRIES: Final = 3  # of an object that the storage refuses while it takes others


class StorageWriter:
    """Stores what the slots of one worker have rendered; `on_change` is called when the storage goes or comes back."""

    def __init__(self, worker: Worker, on_change: Callable[[], object]) -> None:
        self._worker = worker
        self._on_change = on_change
        self._lock = Lock()
        self._waiting = 0  # slots with a picture that the storage does not take
        self._was_checked = False

    def begin(self) -> None:
        """Let nothing be claimed before the first check has found that the storage takes pictures."""
        self._worker.storage_away = f"{STORAGE_AWAY}: it has not answered yet"

    def put(self, outputs: list[Output], cancel: Cancellation, report: Callable[[str], object]) -> None:
        """Store an image's files; while the storage is away, wait and `report` why, for people.

        Raises Cancelled if the image was taken away meanwhile, StorageError if the storage refuses one object alone.
        """
        for output in outputs:
            try:
                self._put(output, cancel, report)
            except StorageError as error:
                if not output.is_extra:
                    raise
                log.warning("extra file not stored", key=output.key, reason=str(error))

    def last_attempt(self, claim: Claim) -> int:
        """Return the latest attempt at an image that left anything in the storage; this one if that cannot be read."""
        try:
            return self._worker.storage.last_attempt(claim.job_id, claim.index)
        except StorageError:
            return claim.attempt

    def is_away(self, error: StorageAway) -> bool:
        """Return whether the storage itself is away, after one object could not be written or read because of `error`.

        If that is not certain another, small object is tried, because this one's size may be to blame.
        """
        try:
            if error.is_certain:
                raise error
            self._worker.storage.check()
        except StorageAway as away:
            self._set_away(away.words)
            return True
        log.warning("the storage works, but not for one object", reason=str(error))
        return False

    def run_once(self) -> None:
        """Check, once at the start and while the storage is away, whether it takes objects now."""
        if self._was_checked and (self._worker.storage_away is None or self._waiting):
            return
        try:
            self._worker.storage.check()
        except StorageAway as away:
            self._set_away(away.words)
        else:
            self._set_away(None)
        self._was_checked = True

    def _put(self, output: Output, cancel: Cancellation, report: Callable[[str], object]) -> None:
        closed, refusals = Event(), 0
        backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        cancel.then(closed.set)
        with self._counted():
            while (error := self._try(output)) is not None:
                refusals = 0 if self.is_away(error) else refusals + 1
                if refusals == _TRIES:
                    raise StorageError(str(error)) from error
                report(self._worker.storage_away or error.words)
                if closed.wait(backoff.failed()):
                    raise Cancelled("it was taken away while the storage was")
        self._set_away(None)

    def _try(self, output: Output) -> StorageAway | None:
        try:
            self._worker.storage.put(output.key, output.data)
        except StorageAway as error:
            return error
        return None

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a slot as waiting: while one does, its own tries show whether the storage is back."""
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _set_away(self, words: str | None) -> None:
        """Set why the storage is away, None if it is not; log and report a change."""
        with self._lock:
            was, self._worker.storage_away = self._worker.storage_away, words
        is_first = not self._was_checked
        if words is not None and (was is None or is_first):
            log.warning("no new images: the storage takes none", worker=self._worker.id, reason=words)
        elif was is not None and words is None and not is_first:
            log.warning("the storage takes pictures again", worker=self._worker.id)
        if (was is None) != (words is None):
            self._on_change()
