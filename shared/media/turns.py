"""Turns at what few may do at once, shared by owners: none of them can keep the others waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition
from typing import NamedTuple

from shared.errors import Unavailable


class Share(NamedTuple):
    """How many may have a turn at once, and how many may be here: those who have one and those who wait."""

    at_once: int
    most: int


class Turns:
    """Turns for all within `whole`, and for each owner within `of_one`.

    Each who waits keeps a thread, so past that nobody waits. Safe for many threads.
    """

    def __init__(self, whole: Share, of_one: Share, patience_seconds: float, refusal: str) -> None:
        self._whole = whole
        self._of_one = of_one
        self._patience_seconds = patience_seconds
        self._refusal = refusal
        self._change = Condition()
        self._inside: Counter[str] = Counter()
        self._having: Counter[str] = Counter()

    @contextmanager
    def turn(self, owner: str) -> Iterator[None]:
        """Have a turn in the block. Raises Unavailable at once where too many wait, or when none comes in time."""
        with self._change:
            if self._inside.total() >= self._whole.most or self._inside[owner] >= self._of_one.most:
                raise Unavailable(self._refusal)
            self._inside[owner] += 1
        try:
            self._wait(owner)
            try:
                yield
            finally:
                self._end(owner)
        finally:
            with self._change:
                self._inside[owner] -= 1
                self._inside += Counter()

    def _wait(self, owner: str) -> None:
        with self._change:
            is_mine = self._change.wait_for(lambda: self._may_begin(owner), self._patience_seconds)
            if not is_mine:
                raise Unavailable(self._refusal)
            self._having[owner] += 1

    def _may_begin(self, owner: str) -> bool:
        return self._having.total() < self._whole.at_once and self._having[owner] < self._of_one.at_once

    def _end(self, owner: str) -> None:
        with self._change:
            self._having[owner] -= 1
            self._having += Counter()  # forgets who has none left
            self._change.notify_all()
