"""Streams and events of the pretended card, in the place of torch.cuda's."""

from __future__ import annotations

import itertools
import threading
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from tests.support.card_ledger import LEDGER
from tests.support.card_order import Known

CUDA = torch.device("cuda:0")
_NUMBERS = itertools.count()
_THREAD = threading.local()


class Stream:
    """A queue of work: in order in itself, beside all other streams."""

    def __init__(self, device: object = None, priority: int = 0, **_: object) -> None:
        self.stream_id = self.cuda_stream = next(_NUMBERS)
        self.device, self.priority = CUDA, priority

    def record_event(self, event: Event | None = None) -> Event:
        """Return an event that has passed when all has been done that this stream was given so far."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Have what comes next wait for an event; the host goes on."""
        if event.known is not None:
            LEDGER.follow(self.stream_id, event.known)
            LEDGER.time.hold(self.stream_id, event.at)

    def wait_stream(self, other: Stream) -> None:
        """Have what comes next wait for all that another stream was given so far."""
        self.wait_event(other.record_event())

    def synchronize(self) -> None:
        """Return when all is done that this stream was given."""
        LEDGER.wait("Stream.synchronize")
        waited_for(self)

    def query(self) -> bool:
        """Return whether all is done."""
        waited_for(self)
        return True

    def __enter__(self) -> Self:
        stack(_THREAD).append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        stack(_THREAD).pop()


class Event:
    """A mark in a stream."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, **_: object) -> None:  # noqa: FBT001, FBT002
        self.enable_timing, self.blocking = enable_timing, blocking
        self.known: Known | None = None  # what is done when it has passed
        self.at = 0.0

    def record(self, stream: Stream | None = None) -> None:
        """Put it behind all that a stream was given so far."""
        stream = stream or current_stream()
        self.known = LEDGER.state(stream.stream_id)
        self.at = LEDGER.time.mark(stream.stream_id)

    def wait(self, stream: Stream | None = None) -> None:
        """Have a stream wait for it; the host goes on."""
        (stream or current_stream()).wait_event(self)

    def synchronize(self) -> None:
        """Return when it has passed."""
        LEDGER.note("waits for an event, asleep" if self.blocking else "waits for an event, spinning")
        self._waited()

    def query(self) -> bool:
        """Return whether it has passed: here it always has."""
        self._waited()
        return True

    def elapsed_time(self, later: Event) -> float:
        """Return the milliseconds between two events."""
        return 1000 * (later.at - self.at)

    def _waited(self) -> None:
        if self.known is not None:
            LEDGER.host_waited(self.known)
            LEDGER.time.wait(self.at)


def stack(thread: Any) -> list[Stream]:
    """The streams that a thread has made its own, the latest last."""
    if not hasattr(thread, "streams"):
        thread.streams = [DEFAULT]
    found: list[Stream] = thread.streams
    return found


def current_stream(_: object = None) -> Stream:
    """Return the stream that this thread gives its work to."""
    return stack(_THREAD)[-1]


def default_stream(_: object = None) -> Stream:
    """Return the stream of all threads that have chosen none."""
    return DEFAULT


def set_stream(stream: Stream) -> None:
    """Make a stream this thread's own."""
    stack(_THREAD)[-1] = stream


def use(stream: Stream | None) -> Stream:
    """Return what makes a stream this thread's own within a block."""
    return stream or current_stream()


def waited_for(stream: Stream) -> None:
    """The host has waited for all that a stream was given."""
    LEDGER.host_waited(LEDGER.state(stream.stream_id))
    LEDGER.time.wait(LEDGER.time.mark(stream.stream_id))


def synchronize(_: object = None) -> None:
    """Return when the whole card is done."""
    LEDGER.wait("torch.cuda.synchronize")
    LEDGER.settle()
    LEDGER.time.wait_for_all()


def empty_cache() -> None:
    """Give memory back that the allocator keeps: the driver waits for the whole card."""
    LEDGER.note("empty_cache")
    LEDGER.time.wait_for_all()


def record_stream(tensor: Tensor, stream: Stream) -> None:
    """Tell the allocator that a stream uses this memory."""
    tensor.share.block.recorded.add(stream.stream_id)  # type: ignore[attr-defined]


DEFAULT = Stream()
