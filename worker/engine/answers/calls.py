"""Calls of networks for many rows: in counts that suit the card, and so that a bad row harms no other row.

A call that fails is made again in halves, until the row that fails is alone. If memory does not hold all rows, it often
holds half of them; so many rows are then not tried again for a minute. A request that can be divided into smaller ones
is not tried at all meanwhile, if it is as large as the call that had no room.
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
NO_ROOM_SECONDS: Final = 60.0
_PICTURE: Final = "a picture of this size"
_MOST_LOGGED: Final = 256  # kinds of failures; a network has only a few
_NUMBERS: Final = re.compile(r"0x[0-9a-f]+|\d+")

Row = TypeVar("Row")
Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class Subject:
    """The subject of a call: a network, for rows of one shape."""

    kind: str  # of request, for people
    network: nn.Module
    shape: tuple[int, ...]  # of one row
    is_divisible: bool = False  # the pipeline can ask for smaller parts instead

    @property
    def cells(self) -> int:
        """The size of one row; the memory of a call grows with its rows and their size."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class _NoRoom:
    """So many cells in one call of a kind did not fit into memory."""

    cells: int
    until: float


class Calls:
    """Makes the calls of one engine, on its thread.

    `broken` counts the calls that failed, by cause; any thread may read it. Without `halves` a call that fails raises.
    Before a single indivisible row fails for lack of memory, `on_full` is called to free some, and returns whether it
    did.
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
        self._no_room: WeakKeyDictionary[nn.Module, dict[str, _NoRoom]] = WeakKeyDictionary()  # by kind of call
        self._logged: set[tuple[object, ...]] = set()
        self.broken = {FULL: 0, FAILED: 0}

    def without_halves(self) -> Calls:
        """Return the same calls, but with an error instead of halves. Both share their counts and what they learned."""
        other = copy(self)
        other._halves = False  # noqa: SLF001 - a copy of itself
        return other

    def make(
        self,
        call: Callable[[Sequence[Row]], Sequence[Answer]],
        rows: Sequence[Row],
        subject: Subject,
        most: int | None = None,
    ) -> list[Answer | Exception]:
        """Return an answer for each row, from calls of `most` rows at most. The answer of a row that fails alone is its
        error.

        Raises an error that leaves the card unusable.
        """
        if subject.is_divisible and subject.cells >= self._cells_without_room(subject):
            return [no_room(_PICTURE) for _ in rows]
        made: list[Answer | Exception] = []
        while rows:
            count = on_ladder(min(most or len(rows), len(rows), self.most_rows(subject)), self._ladder)
            made += self._in_halves(call, rows[:count], subject, is_whole=True)
            rows = rows[count:]
        return made

    def most_rows(self, subject: Subject) -> int:
        """Return how many rows a call of this network may have, fewer than lately had no room; one at least."""
        return max(1, (self._cells_without_room(subject) - 1) // subject.cells)

    def _cells_without_room(self, subject: Subject) -> int:
        """Return the fewest cells that lately had no room in a call such as this."""
        found = self._no_room.get(subject.network, {}).get(subject.kind)
        return found.cells if found and found.until > self._clock() else sys.maxsize

    def _in_halves(
        self,
        call: Callable[[Sequence[Row]], Sequence[Answer]],
        rows: Sequence[Row],
        subject: Subject,
        *,
        is_whole: bool = False,
        may_free: bool = True,
    ) -> list[Answer | Exception]:
        try:
            return list(call(rows))
        except Exception as error:
            if is_fatal(error):
                raise
            self._record(error, len(rows), subject, is_whole=is_whole)
            if not self._halves:
                raise
            without_tracebacks(error)  # which hold frames, and these hold tensors
            failure = no_room(_PICTURE) if is_out_of_memory(error) else error
        is_full = isinstance(failure, OutOfMemory)
        if is_full:
            release_memory()
        if len(rows) > 1:
            middle = on_ladder(len(rows) // 2, self._ladder)
            halves = rows[:middle], rows[middle:]
            return [answer for half in halves for answer in self._in_halves(call, half, subject)]
        if is_full and may_free and not subject.is_divisible and self._on_full():
            release_memory()
            self._no_room.clear()  # there is more room now
            return self._in_halves(call, rows, subject, may_free=False)
        return [failure]

    def _record(self, error: Exception, rows: int, subject: Subject, *, is_whole: bool) -> None:
        """Count and log a failed call, and remember how many rows had no room."""
        if isinstance(error, RenderError):  # raised on purpose: the user sees it
            return
        is_full = is_out_of_memory(error)
        self.broken[FULL if is_full else FAILED] += 1
        if is_full:
            cells = min(rows * subject.cells, self._cells_without_room(subject))
            until = self._clock() + NO_ROOM_SECONDS
            self._no_room.setdefault(subject.network, {})[subject.kind] = _NoRoom(cells, until)
        words = type(error).__name__ if is_full else f"{type(error).__name__}: {_NUMBERS.sub('#', str(error))}"
        kind = (subject.kind, words, rows, subject.shape)
        if is_whole and kind not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(kind)
            log.warning(
                "call failed", kind=subject.kind, rows=rows, shape=subject.shape, again=self._halves, exc_info=error
            )


def on_ladder(rows: int, ladder: Sequence[int]) -> int:
    """Return the largest row count of `ladder` that is not above `rows`; `rows` if there is none."""
    return max((count for count in ladder if count <= rows), default=rows)
