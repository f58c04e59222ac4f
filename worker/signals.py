"""What signals ask of this process, heard on a thread of its own: a handler takes no lock, nothing stuck delays it."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from select import select
from threading import Event, Thread
from typing import Final

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG: Final = 1


class Shutdown:
    """The first TERM (or Ctrl-C) drains; a second one, or the end of the grace time, hands back and ends all."""

    def __init__(self, grace_seconds: float) -> None:
        self.is_asked = Event()
        self._grace_seconds = grace_seconds
        self._signals: int = -1

    def install(self, drain: Callable[[], object], hand_back: Callable[[], object]) -> None:
        """Begin to listen; from the main thread. `drain` returns at once, `hand_back` ends the process."""
        self._signals, wakeup = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in _STOP:
            signal.signal(number, _ignore)  # the wakeup pipe carries the number
        Thread(target=self._watch, args=(drain, hand_back), name="shutdown", daemon=True).start()

    def _watch(self, drain: Callable[[], object], hand_back: Callable[[], object]) -> None:
        self._await_signal(None)
        self.is_asked.set()
        drain()
        self._await_signal(self._grace_seconds)
        hand_back()

    def _await_signal(self, seconds: float | None) -> None:
        """Return after a TERM or INT, or after `seconds`."""
        end = None if seconds is None else time.monotonic() + seconds
        while select([self._signals], [], [], None if end is None else max(0.0, end - time.monotonic()))[0]:
            if os.read(self._signals, 1)[0] in _STOP:
                return


def _ignore(number: int, frame: object) -> None:
    """Exist, so that the number reaches the wakeup pipe."""


def die_with(parent: int) -> None:
    """Have the kernel send TERM to this process when process `parent` dies, however it dies; at once if it is gone.

    The kernel watches the parent's thread that started this process; the supervisor starts them from its main thread.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
