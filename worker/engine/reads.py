"""Reads of a card that hold nobody up: beside the engine's stream, into pinned memory, and who waits is asleep.

The engine queues its work a turn or two ahead. A copy on its stream would stand behind all of that, and a plain one
keeps a processor busy until it is there. So what reads a value does it on another stream, which waits for nothing but
a mark that the engine's thread leaves when it has queued what makes the value. On a CPU there is nothing to wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Final, Literal, TypeVar

import torch
from torch import Tensor

from worker.engine.devices import Device, marked, read_into, staging

T = TypeVar("T")
Use = Literal["pictures", "previews"]
"""Each has a stream of its own: a finished picture waits for no preview."""

_PRIORITIES: Final[dict[Use, int]] = {"pictures": -1, "previews": 0}  # lower goes first; what reads a picture is short


def beside(on: Device, function: Callable[[], T], use: Use = "pictures") -> Callable[[], T]:
    """Return `function` for another thread: there it follows what is queued on the card now, and nothing later.

    Called on the engine's thread, once what `function` reads is queued. What it computes on the card stays on that
    stream: it returns only what `fetched` brought to the host.
    """
    if on.kind == "cpu":
        return function
    return partial(_after, marked(), _stream(on.torch, use), function)


def fetched(tensor: Tensor) -> Tensor:
    """Return `tensor` on the host; on a CPU that is `tensor` itself. Waits for this thread's stream, asleep."""
    if not tensor.is_cuda:
        return tensor
    staged = staging(tensor.shape, tensor.dtype)
    read_into(staged, tensor)
    return staged.clone()  # pinned memory does not go back to the system by itself: let the next read have it


def _after(made: torch.cuda.Event, stream: torch.cuda.Stream, function: Callable[[], T]) -> T:
    with torch.cuda.stream(stream):
        stream.wait_event(made)
        try:
            return function()
        except BaseException:
            # What it read may be given to others once this thread lets go of it: not before the card is done with it.
            with suppress(Exception):
                marked().synchronize()
            raise


@cache
def _stream(on: torch.device, use: Use) -> torch.cuda.Stream:
    return torch.cuda.Stream(on, priority=_PRIORITIES[use])
