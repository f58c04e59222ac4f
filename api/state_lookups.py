"""The states of jobs that are followed, looked up together: many streams are few questions to PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from shared.db.states import ImageState

States = Mapping[int, ImageState]


class StateLookups:
    """Asks for the states of jobs in a thread of its own; what is asked for during a look-up is looked up next."""

    def __init__(self, look_up: Callable[[Collection[int]], States]) -> None:
        self._look_up = look_up
        self._waiting: dict[int, Future[ImageState | None]] = {}
        self._is_looking = False
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, "state-lookups")

    def state(self, job: int) -> Future[ImageState | None]:
        """Return a job's state to come: None if there is no such job. It may raise Unavailable."""
        with self._lock:
            if job not in self._waiting:
                self._waiting[job] = Future()
                self._waiting[job].set_running_or_notify_cancel()  # who leaves must not cancel it for the others
            future = self._waiting[job]
            if not self._is_looking:
                self._is_looking = True
                self._thread.submit(self._run)
            return future

    def close(self) -> None:
        """End the thread; what waits is not looked up."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        while waiting := self._next():
            try:
                states = self._look_up(waiting.keys())
            except Exception as error:  # noqa: BLE001 - the edge of the thread: the callers get the error
                for future in waiting.values():
                    future.set_exception(error)
            else:
                for job, future in waiting.items():
                    future.set_result(states.get(job))

    def _next(self) -> dict[int, Future[ImageState | None]]:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            self._is_looking = bool(waiting)
            return waiting
