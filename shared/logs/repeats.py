"""Limits the logs of a process: of a repeated warning the first few are written, and the others counted."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Final, NamedTuple, TextIO

WINDOW_SECONDS: Final = 10.0
MOST_ALIKE: Final = 20
"""Warnings and errors of one kind that are written in a window."""

_MOST_KINDS: Final = 1000


class _Kind(NamedTuple):
    name: str
    level: int
    event: str


@dataclass
class _Window:
    until: float
    written: int = 0
    left_out: int = 0


class Repeats:
    """Decides which records are written. Safe for many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._windows: OrderedDict[_Kind, _Window] = OrderedDict()

    def passes(self, record: logging.LogRecord) -> bool:
        """True if `record` is to be written, as every record below a warning is."""
        if record.levelno < logging.WARNING:
            return True
        with self._lock:
            kind = _kind(record)
            window = self._windows.setdefault(kind, _Window(self._clock() + WINDOW_SECONDS))
            is_written = window.written < MOST_ALIKE
            window.written += is_written
            window.left_out += not is_written
            return is_written

    def summaries(self, *, all_of_them: bool = False) -> Iterator[logging.LogRecord]:
        """Yield a record for each kind of which some were left out, and start counting it again."""
        with self._lock:
            now = self._clock()
            ended = [
                (kind, self._windows.pop(kind))
                for kind, window in tuple(self._windows.items())
                if all_of_them or window.until <= now or len(self._windows) > _MOST_KINDS
            ]
        for kind, window in ended:
            if window.left_out:
                message = f"… {window.left_out:,} more like it in {WINDOW_SECONDS:.0f} s: {kind.event}"
                yield logging.LogRecord(kind.name, kind.level, "", 0, message, None, None)


class CountingHandler(logging.StreamHandler[TextIO]):
    """Writes records and counts repeated warnings; the next record, or `close`, writes the counts."""

    def __init__(self, stream: TextIO, repeats: Repeats | None = None) -> None:
        super().__init__(stream)
        self._repeats = repeats or Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`, if its kind has not been written too often."""
        for summary in self._repeats.summaries():
            super().emit(summary)
        if self._repeats.passes(record):
            super().emit(record)

    def close(self) -> None:
        """Write the counts that are left."""
        for summary in self._repeats.summaries(all_of_them=True):
            super().emit(summary)
        super().close()


def _kind(record: logging.LogRecord) -> _Kind:
    """Return the kind of a record: its event without its fields; of a Python warning its place."""
    if record.name == "py.warnings":
        return _Kind(record.name, record.levelno, ":".join(record.getMessage().split(":", 2)[:2]))
    event = record.msg.get("event", "") if isinstance(record.msg, dict) else record.msg
    return _Kind(record.name, record.levelno, str(event)[:200])
