"""Ctrl-C, TERM and a closed terminal, as calls of a function instead of the end of the process."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def caught(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` at each of the signals while the context lasts. What is ignored (nohup) stays so."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda *_: act())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_interrupt() -> None:
    """Raise KeyboardInterrupt: for `caught`, where TERM is to do what Ctrl-C does."""
    raise KeyboardInterrupt


class StopRequest:
    """Something asked for once or more, and waited for. A pipe: a signal handler must not take a lock."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._reading)
        os.close(self._writing)

    def ask(self) -> None:
        """Ask to stop."""
        os.write(self._writing, b".")

    def wait(self, seconds: float) -> bool:
        """Return True as soon as it has been asked for, False after `seconds` without."""
        return bool(select.select([self._reading], [], [], seconds)[0])
