"""Turns at what few may do at once, shared by owners: none of them can keep the others waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from shared.errors import Unavailable


class Turns:
    """At most `at_once` turns at a time, one of each owner; `most` may be in here, `most_of_one` of them of one owner.

    Each who waits keeps a thread, so past that nobody waits. Safe for many threads.
    """

    def __init__(self, at_once: int, most: int, most_of_one: int, patience_seconds: float, refusal: str) -> None:
        self._at_once = at_once
        self._most = most
        self._most_of_one = most_of_one
        self._patience_seconds = patience_seconds
        self._refusal = refusal
        self._change = Condition()
        self._inside: Counter[str] = Counter()
        self._having: set[str] = set()

    @contextmanager
    def turn(self, owner: str) -> Iterator[None]:
        """Have a turn in the block. Raises Unavailable at once where too many wait, or when none comes in time."""
        with self._change:
            if self._inside.total() >= self._most or self._inside[owner] >= self._most_of_one:
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
                self._inside += Counter()  # forgets who has none left

    def _wait(self, owner: str) -> None:
        with self._change:
            is_mine = self._change.wait_for(lambda: self._may_begin(owner), self._patience_seconds)
            if not is_mine:
                raise Unavailable(self._refusal)
            self._having.add(owner)

    def _may_begin(self, owner: str) -> bool:
        return owner not in self._having and len(self._having) < self._at_once

    def _end(self, owner: str) -> None:
        with self._change:
            self._having.remove(owner)
            self._change.notify_all()
