"""A thread that does one thing again and again: heartbeats, polls, scans, progress reports."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

import structlog

log = structlog.get_logger(__name__)


class Periodic:
    """Calls `run_once` every `seconds`, or after the seconds that it returns, on its own thread; at once when woken."""

    def __init__(self, name: str, seconds: float, run_once: Callable[[], float | None]) -> None:
        self._name = name
        self._seconds = seconds
        self._run_once = run_once
        self._woken = Event()
        self._is_stopped = False
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def stop(self, *, wait: bool = True) -> None:
        """End the thread after its present call; return when it has ended, or at once."""
        self._is_stopped = True
        self._woken.set()
        if wait and self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._is_stopped:
            self._woken.clear()
            self._woken.wait(self._call() or self._seconds)

    def _call(self) -> float | None:
        try:
            return self._run_once()
        except Exception:  # an edge: one failure must not end the thread
            log.exception("periodic call failed", thread=self._name)
            return None
