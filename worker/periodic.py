"""A thread that does one thing again and again: the beat, the look, the scan, the progress reports."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

import structlog

log = structlog.get_logger(__name__)


class Periodic:
    """Calls `run_once` every `seconds` on its own thread, at once when woken; it may return other seconds to wait."""

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
        """End the thread after the call that runs; return when it has ended, or at once."""
        self._is_stopped = True
        self._woken.set()
        if wait and self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._is_stopped:
            self._woken.clear()
            self._woken.wait(self._run_safely() or self._seconds)

    def _run_safely(self) -> float | None:
        try:
            return self._run_once()
        except Exception:  # an edge: one bad call must not silence the thread for good
            log.exception("turn failed", thread=self._name)
            return None
