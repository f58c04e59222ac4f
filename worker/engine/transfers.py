"""Copies between the host and a card, and the streams that they go on: neither waits for the other without need.

The engine queues its calls a turn or two ahead. A copy on its stream would wait for all of them, and a plain copy keeps
a processor busy until it is done. So a value is read on another stream, which waits only for an event that the engine's
thread records when it has queued the calls that compute the value. A thread that waits sleeps. On a CPU there is
nothing to wait for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Final, Literal, TypeVar

import torch
from torch import Tensor

from worker.engine.cuda_errors import is_fatal
from worker.engine.devices import Device, enter

T = TypeVar("T")
Use = Literal["pictures", "previews"]
"""Each has its own stream, so that a finished picture never waits for a preview."""

TURNS_AHEAD: Final = 2
_PRIORITIES: Final[dict[Use, int]] = {"pictures": -1, "previews": 0}  # the lower number is served first


def to_device(tensor: Tensor, device: Device) -> Tensor:
    """Return `tensor`, made on the host, on the device; does not wait for earlier calls of the card."""
    return tensor.to(device.torch, non_blocking=True)


def pinned(tensor: Tensor, to: Device) -> Tensor:
    """Return `tensor` in pinned memory, which a card reads while the host goes on; if the host cannot pin more memory,
    `tensor` itself.
    """
    return tensor if to.kind == "cpu" else _pinned_if_possible(tensor.pin_memory, lambda: tensor)


def pinned_bytes(size: int, to: Device) -> Tensor:
    """Return `size` bytes of the host's memory, uint8, for a card as `staging` makes them."""
    return torch.empty(size, dtype=torch.uint8) if to.kind == "cpu" else staging((size,), torch.uint8)


def staging(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return empty pinned memory, which a card reads and writes; if the host cannot pin more, ordinary memory."""
    make = partial(torch.empty, shape, dtype=dtype)
    return _pinned_if_possible(partial(make, pin_memory=True), make)


def _pinned_if_possible(pin: Callable[[], Tensor], ordinary: Callable[[], Tensor]) -> Tensor:
    try:
        return pin()
    except RuntimeError as error:
        if is_fatal(error):
            raise
    return ordinary()


def release_pinned_memory() -> None:
    """Return unused pinned memory to the host."""
    if torch.accelerator.is_available():
        torch.accelerator.empty_host_cache()


def recorded_event() -> torch.cuda.Event:
    """Return an event recorded on this thread's stream: its `synchronize` sleeps until all earlier work is done."""
    event = torch.cuda.Event(blocking=True)
    event.record()
    return event


def read_into(memory: Tensor, source: Tensor) -> None:
    """Copy `source`, on the card, to `memory` of the host; return when it is there. Sleeps if `memory` is pinned."""
    memory.copy_(source, non_blocking=True)
    recorded_event().synchronize()


def fetched(tensor: Tensor) -> Tensor:
    """Return `tensor` on the host; on a CPU that is `tensor` itself. Sleeps until this thread's stream has done it."""
    if not tensor.is_cuda:
        return tensor
    staged = staging(tensor.shape, tensor.dtype)
    read_into(staged, tensor)
    return staged.clone()  # pinned memory does not return to the system by itself: leave it to the next read


def beside(on: Device, function: Callable[[], T], use: Use = "pictures") -> Callable[[], T]:
    """Return `function` for another thread, where it waits for the calls queued on the card so far, and no later ones.

    Called on the engine's thread, once the calls that compute what `function` reads are queued. Tensors that `function`
    computes on the card stay on that stream: it must return only what `fetched` brought to the host.
    """
    if on.kind == "cpu":
        return function
    return partial(_after, recorded_event(), _stream(on.torch, use), function)


def _after(event: torch.cuda.Event, stream: torch.cuda.Stream, function: Callable[[], T]) -> T:
    with torch.cuda.stream(stream):
        stream.wait_event(event)
        try:
            return function()
        except BaseException:
            # The memory it read may be reused once this thread drops its tensors: not before the card is done with it.
            with suppress(Exception):
                recorded_event().synchronize()
            raise


@cache
def _stream(device: torch.device, use: Use) -> torch.cuda.Stream:
    return torch.cuda.Stream(device, priority=_PRIORITIES[use])


@contextmanager
def own_stream(on: Device) -> Iterator[None]:
    """Within the block, this thread's calls run beside those of other threads; the thread enters the device first."""
    if on.kind == "cpu":
        yield
        return
    enter(on)
    with torch.cuda.stream(torch.cuda.Stream(on.torch)):
        yield


def hand_over(tensors: Iterable[Tensor], on: Device) -> None:
    """Return when `tensors`, computed on this thread's stream, are done; from then on the engine may use them.

    This thread sleeps meanwhile. The engine's stream never waits, but their memory is not reused while it reads it.
    """
    recorded_event().synchronize()
    engine_stream = torch.cuda.default_stream(on.torch)
    for tensor in tensors:
        tensor.record_stream(engine_stream)


class Pace:
    """Keeps the host a turn or two ahead of the card, so that the card never waits for Python; a CPU is never ahead."""

    def __init__(self, on: Device) -> None:
        self._on = on
        self._turns: deque[torch.cuda.Event] = deque()

    def turn(self) -> None:
        """Record the end of a turn; return when the card is at most two turns behind."""
        if self._on.kind == "cpu":
            return
        self._turns.append(recorded_event())  # waits asleep: a core that spins could encode a picture
        if len(self._turns) > TURNS_AHEAD:
            self._turns.popleft().synchronize()

    def stop(self) -> None:
        """Return when the card has done all turns."""
        while self._turns:
            self._turns.popleft().synchronize()
