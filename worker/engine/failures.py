"""Errors without the frames in which they were raised: frames hold tensors and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from shared.errors import OutOfMemory

E = TypeVar("E", bound=BaseException)


def without_tracebacks(error: E) -> E:
    """Return `error` itself, its traceback and those of its causes removed: log it before."""
    for one in _chain(error):
        one.__traceback__ = None
    return error


def duplicate(error: E) -> E:
    """Return an error equal to `error`, to be raised in its place.

    If a stored error is raised, it holds the frames of the thread that waits for it, and these hold the object that
    stores it: a cycle, which stays in memory until Python's collector runs.
    """
    other = type(error).__new__(type(error), *error.args)
    other.__dict__.update(error.__dict__)
    other.__cause__ = error.__cause__
    return other


def no_room(subject: str) -> OutOfMemory:
    """Return the error that says that there is not enough memory for `subject`, on the card or on the host."""
    return OutOfMemory(f"there is not enough memory for {subject}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, its causes and contexts, and the errors of groups among them."""
    seen: dict[int, BaseException] = {}
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen[id(one)] = one
            left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
            yield one
