"""One call for many rows that survives a bad one: asked again in halves, until what fails stands alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from shared.errors import OutOfMemory
from worker.engine.devices import is_fatal, is_out_of_memory, release_memory

Row = TypeVar("Row")
Answer = TypeVar("Answer")


def in_halves(call: Callable[[Sequence[Row]], Sequence[Answer]], rows: Sequence[Row]) -> list[Answer | Exception]:
    """Return an answer for each row; a row that fails even alone is answered with its error.

    Memory that does not hold all rows often holds half of them; and a row that breaks a call must not take its
    neighbours with it. Raises only what leaves the card unusable.
    """
    try:
        return list(call(rows))
    except Exception as error:
        if is_fatal(error):
            raise
        failure = _explained(error)  # outside of this block nothing holds the traceback, and with it the tensors
    release_memory()
    if len(rows) == 1:
        return [failure]
    middle = len(rows) // 2
    return in_halves(call, rows[:middle]) + in_halves(call, rows[middle:])


def _explained(error: Exception) -> Exception:
    if is_out_of_memory(error):
        return OutOfMemory("the card has not enough memory for a picture of this size")
    return error.with_traceback(None)
