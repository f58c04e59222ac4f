"""Errors as people are told them, without what they were raised over: tracebacks hold frames, and frames hold tensors
and checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from shared.errors import OutOfMemory

E = TypeVar("E", bound=BaseException)


def bared(error: E) -> E:
    """Return `error` itself without its traceback and without those of the errors behind it: log it before."""
    for one in _together(error):
        one.__traceback__ = None
    return error


def again(error: E) -> E:
    """Return an error equal to `error`, to be raised in its place.

    An error that is kept and raised would hold the frames of who waits for it, and they hold what keeps it: a cycle,
    which stays in memory until Python's collector comes by.
    """
    other = type(error).__new__(type(error), *error.args)
    other.__dict__.update(error.__dict__)
    other.__cause__ = error.__cause__
    return other


def no_room(what: str) -> OutOfMemory:
    """Return the error of what there was no memory for, on the card or on the host."""
    return OutOfMemory(f"there is not enough memory for {what}")


def _together(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, what it came of, what it came upon, and what it holds."""
    seen: dict[int, BaseException] = {}
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen[id(one)] = one
            left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
            yield one
