"""A limit on how much goes on at once, shared by owners: none of them can keep the others waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import NamedTuple

from shared.errors import Unavailable


class Share(NamedTuple):
    """How many may be active at once, and how many may be active or waiting."""

    at_once: int
    most: int


class FairLimit:
    """Admits callers within `whole`, and those of each owner within what `of_one` says now. Safe for many threads.

    Each caller that waits keeps a thread, so callers beyond `most` are refused.
    """

    def __init__(self, whole: Share, of_one: Callable[[], Share], patience_seconds: float, refusal: str) -> None:
        self._whole = whole
        self._of_one = of_one
        self._patience_seconds = patience_seconds
        self._refusal = refusal
        self._change = Condition()
        self._inside: Counter[str] = Counter()
        self._active: Counter[str] = Counter()

    @contextmanager
    def held(self, owner: str) -> Iterator[None]:
        """Be active within the block. Raises Unavailable at once if too many wait, or if the wait takes too long."""
        with self._change:
            if self._inside.total() >= self._whole.most or self._inside[owner] >= self._of_one().most:
                raise Unavailable(self._refusal)
            self._inside[owner] += 1
        try:
            self._wait(owner)
            try:
                yield
            finally:
                with self._change:
                    self._active[owner] -= 1
                    self._active += Counter()  # drops owners that have none left
                    self._change.notify_all()
        finally:
            with self._change:
                self._inside[owner] -= 1
                self._inside += Counter()

    def _wait(self, owner: str) -> None:
        def may_begin() -> bool:
            return self._active.total() < self._whole.at_once and self._active[owner] < self._of_one().at_once

        with self._change:
            if not self._change.wait_for(may_begin, self._patience_seconds):
                raise Unavailable(self._refusal)
            self._active[owner] += 1
