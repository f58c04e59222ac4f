"""A thread that does one thing again and again: the beat, the look, the scan, the progress reports."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

import structlog

log = structlog.get_logger(__name__)


class Periodic:
    """Calls `turn` every `seconds` on a thread of its own, at once when woken; it may return other seconds to wait."""

    def __init__(self, name: str, seconds: float, turn: Callable[[], float | None]) -> None:
        self._name = name
        self._seconds = seconds
        self._turn = turn
        self._woken = Event()
        self._is_stopped = False
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def stop(self, *, wait: bool = True) -> None:
        """End the thread after its turn; return when it has ended, or at once."""
        self._is_stopped = True
        self._woken.set()
        if wait and self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._is_stopped:
            self._woken.clear()
            self._woken.wait(self._safe_turn() or self._seconds)

    def _safe_turn(self) -> float | None:
        try:
            return self._turn()
        except Exception:  # an edge: one bad turn must not silence the thread for good
            log.exception("turn failed", thread=self._name)
            return None
