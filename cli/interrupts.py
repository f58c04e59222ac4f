"""Ctrl-C, TERM and a closed terminal, as calls of a function instead of the end of the process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from shared.waiting.signals import SignalPipe

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def caught(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` at each of the signals within the context. A signal that is ignored (nohup) stays ignored."""
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


def to_stop() -> SignalPipe:
    """Return the signals that ask to stop, to be waited for; without those that this process ignores (nohup)."""
    return SignalPipe(number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN)
