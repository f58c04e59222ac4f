"""Signals end this process in two stages; the death of its parent sends one."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from threading import Event, Thread
from typing import Final

from shared.waiting.signals import SignalPipe

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG: Final = 1


class Shutdown:
    """The first TERM (or Ctrl-C) drains; a second one, or the end of the grace time, hands back and ends."""

    def __init__(self, grace_seconds: float) -> None:
        self.is_requested = Event()
        self._grace_seconds = grace_seconds
        self._signals = SignalPipe(_STOP)

    def install(self, drain: Callable[[], object], hand_back: Callable[[], object]) -> None:
        """Begin to listen, from the main thread and for as long as the process lives.

        `drain` returns at once, `hand_back` ends the process.
        """
        self._signals.begin()
        Thread(target=self._wait, args=(drain, hand_back), name="shutdown", daemon=True).start()

    def request(self) -> None:
        """Drain and end, as if a signal had come."""
        os.kill(os.getpid(), signal.SIGTERM)

    def _wait(self, drain: Callable[[], object], hand_back: Callable[[], object]) -> None:
        self._signals.wait()
        self.is_requested.set()
        drain()
        self._signals.wait(self._grace_seconds)
        hand_back()


def die_with(parent: int) -> None:
    """Have the kernel send TERM to this process when process `parent` dies, however it dies; at once if it is gone.

    The kernel watches the parent's thread that started this process; the supervisor starts them from its main thread.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
