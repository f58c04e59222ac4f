"""Waiting for a condition instead of sleeping for a guess."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 60, what: str = "") -> T:
    """Return the first true answer of `condition`, asked again and again. Fails after `seconds`, saying for `what`."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what or condition!r}; the last answer: {answer!r}")
        time.sleep(0.02)
