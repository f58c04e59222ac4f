"""Calls of networks for many rows: in portions that suit the card, and so that a bad row harms no other.

A call that fails is made again in halves, until what fails stands alone. Memory that does not hold all rows often holds
half of them; so many rows are then not tried again for a minute. What can be asked for in smaller parts is not tried at
all meanwhile, where it is as large as what had no room.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

import structlog
from torch import nn

from shared.errors import OutOfMemory, RenderError
from worker.engine.cuda_errors import is_fatal, is_out_of_memory
from worker.engine.devices import release_memory
from worker.engine.failures import no_room, without_tracebacks

log = structlog.get_logger(__name__)

FULL: Final = "out of memory"
FAILED: Final = "error"
HELD_SECONDS: Final = 60.0
_PICTURE: Final = "a picture of this size"
_MOST_LOGGED: Final = 256  # kinds of failures; a network has few
_NUMBERS: Final = re.compile(r"0x[0-9a-f]+|\d+")

Row = TypeVar("Row")
Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class Subject:
    """What a call is of."""

    kind: str  # what is asked, for people
    network: nn.Module
    shape: tuple[int, ...]  # of one row
    is_divisible: bool = False  # who asks for it can ask for smaller parts of it instead

    @property
    def cells(self) -> int:
        """The size of one row; what a call of a network takes of memory goes with its rows and their size."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class _Hold:
    """So many cells in one call of a kind had no room."""

    cells: int
    until: float


class Calls:
    """Makes the calls of one engine, on its thread.

    `broken` counts those that failed, by cause, and may be read from anywhere. Without `halves` a call that fails
    raises. `on_full` is asked to free memory before a row fails that is alone and not divisible, and returns whether it
    freed any.
    """

    def __init__(
        self,
        ladder: Sequence[int] = (),
        *,
        halves: bool = True,
        on_full: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ladder = ladder
        self._halves = halves
        self._on_full = on_full
        self._clock = clock
        self._holds: WeakKeyDictionary[nn.Module, dict[str, _Hold]] = WeakKeyDictionary()  # by kind of call
        self._logged: set[tuple[object, ...]] = set()
        self.broken = {FULL: 0, FAILED: 0}

    def without_halves(self) -> Calls:
        """Return what makes calls as these do, but none again: one that fails raises. Both learn and count together."""
        other = copy(self)
        other._halves = False  # noqa: SLF001 - a copy of itself
        return other

    def make(
        self,
        call: Callable[[Sequence[Row]], Sequence[Answer]],
        rows: Sequence[Row],
        of: Subject,
        most: int | None = None,
    ) -> list[Answer | Exception]:
        """Return an answer for each row, from calls of `most` rows at most; a row that fails even alone is answered
        with its error.

        Raises what leaves the card unusable.
        """
        if of.is_divisible and of.cells >= self._held_cells(of):
            return [no_room(_PICTURE) for _ in rows]
        made: list[Answer | Exception] = []
        while rows:
            count = on_ladder(min(most or len(rows), len(rows), self.most_rows(of)), self._ladder)
            made += self._in_halves(call, rows[:count], of, is_whole=True)
            rows = rows[count:]
        return made

    def most_rows(self, of: Subject) -> int:
        """Return how many rows a call of this network may have, after what lately had no room; one at least."""
        return max(1, (self._held_cells(of) - 1) // of.cells)

    def _held_cells(self, of: Subject) -> int:
        """How many cells lately had no room in a call such as this, at least."""
        hold = self._holds.get(of.network, {}).get(of.kind)
        return hold.cells if hold and hold.until > self._clock() else sys.maxsize

    def _in_halves(
        self,
        call: Callable[[Sequence[Row]], Sequence[Answer]],
        rows: Sequence[Row],
        of: Subject,
        *,
        is_whole: bool = False,
        may_free: bool = True,
    ) -> list[Answer | Exception]:
        try:
            return list(call(rows))
        except Exception as error:
            if is_fatal(error):
                raise
            self._note(error, len(rows), of, is_whole=is_whole)
            if not self._halves:
                raise
            failure = _explained(error)  # outside of this block nothing holds the traceback, and with it the tensors
        is_full = isinstance(failure, OutOfMemory)
        if is_full:
            release_memory()
        if len(rows) > 1:
            middle = on_ladder(len(rows) // 2, self._ladder)
            halves = rows[:middle], rows[middle:]
            return [answer for half in halves for answer in self._in_halves(call, half, of)]
        if is_full and may_free and not of.is_divisible and self._on_full():
            release_memory()
            self._holds.clear()  # there is more room now
            return self._in_halves(call, rows, of, may_free=False)
        return [failure]

    def _note(self, error: Exception, rows: int, of: Subject, *, is_whole: bool) -> None:
        """Count and log that a call failed, and hold back so many rows where that was for lack of memory."""
        if isinstance(error, RenderError):  # raised on purpose: its message reaches people
            return
        is_full = is_out_of_memory(error)
        self.broken[FULL if is_full else FAILED] += 1
        if is_full:
            hold = _Hold(min(rows * of.cells, self._held_cells(of)), self._clock() + HELD_SECONDS)
            self._holds.setdefault(of.network, {})[of.kind] = hold
        words = type(error).__name__ if is_full else f"{type(error).__name__}: {_NUMBERS.sub('#', str(error))}"
        kind = (of.kind, words, rows, of.shape)
        if is_whole and kind not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(kind)
            log.warning("call failed", kind=of.kind, rows=rows, shape=of.shape, again=self._halves, exc_info=error)


def on_ladder(rows: int, ladder: Sequence[int]) -> int:
    """Return the largest row count of `ladder` that is not above `rows`, or `rows` where any count will do."""
    return max((count for count in ladder if count <= rows), default=rows)


def _explained(error: Exception) -> Exception:
    without_tracebacks(error)
    return no_room(_PICTURE) if is_out_of_memory(error) else error
