"""The ledger of the pretended card: memory, kernels, waits, and operations that no card allows."""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import torch
from torch import Tensor

from tests.support.card_order import Block, Known, Order, Stamp, Transfer

SUPPORT = f"{Path(__file__).parent}{os.sep}"
ROOT = f"{Path(__file__).parents[2]}{os.sep}"
WORKER = f"{ROOT}worker{os.sep}"
LIBRARIES = re.compile(r"site-packages/(diffusers|transformers)/")
GRAIN = 512  # bytes: the caching allocator hands out memory in pieces of it


class Entry(NamedTuple):
    """Something that happened: what, on which kind of thread, and where."""

    what: str
    thread: str  # its name without numbers: "engine", "engine work", "preview"
    place: str  # file and function of the worker, and the library's within it: "engine/images/tiles.py:joined"
    line: int


class Kernel(NamedTuple):
    """What one kernel does."""

    name: str
    kind: str  # conv, gemm, attention64 … by the width of a head, norm, pointwise, strided
    flops: float
    bytes: int  # read and written


class Time:
    """How long things take: here no time at all. `card_time` has a model that takes this one's place."""

    def kernel(self, stream: int, kernel: Kernel) -> None:
        """A stream was given a kernel."""

    def copy(self, stream: int, size: int, *, to_card: bool, is_pinned: bool, is_blocking: bool) -> None:
        """A stream was given a copy of `size` bytes between the host and the card."""

    def mark(self, stream: int) -> float:
        """Return when all is done that a stream was given."""
        return 0.0

    def hold(self, stream: int, until: float) -> None:
        """A stream goes on when a mark is passed."""

    def wait(self, until: float) -> None:
        """This thread goes on when a mark is passed."""

    def wait_for_all(self) -> None:
        """This thread goes on when the whole card is done."""


class Ledger:
    """All that happened on the pretended card. Written by any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.time = Time()
        self.inner = "cpu"  # where the values are; meta: nowhere
        self.capacity = 80 * 2**30  # bytes of the card
        self.allowed = 1.0  # share of them that this process may take
        self.pinnable = 64 * 2**30  # bytes of the host that may be pinned
        self.sync_mode = "default"
        self.on_kernel: Callable[[str, Sequence[Tensor]], None] | None = None  # may raise, as a kernel that refuses
        self.live = 0  # bytes
        self.pinned: dict[int, int] = {}  # address -> bytes
        self._blocks: dict[int, Block] = {}
        self._order = Order(self.error)
        self.clear()

    def clear(self) -> None:
        """Forget what happened so far; memory and what is under way stay on the books."""
        with self.lock:
            self.peak = self.live
            self.ooms = 0  # how often there was no room
            self.waits: Counter[Entry] = Counter()  # a thread stood still for all that a stream was given
            self.notes: Counter[Entry] = Counter()  # what costs something, or is asked on purpose
            self.errors: list[str] = []
            self.kernels: Counter[str] = Counter()
            self.attention: Counter[tuple[str, tuple[int, ...], bool]] = Counter()  # kernel, shape, whether masked
            self.work: list[Kernel] | None = None  # every kernel in order, where a list is given

    def waits_of(self, thread: str) -> list[Entry]:
        """Return the waits of one kind of thread."""
        return [entry for entry in self.waits if entry.thread == thread]

    # Memory.

    def take(self, key: int, size: int, stream: int) -> Block:
        """Book one tensor more over a piece of memory. Raises torch.OutOfMemoryError if there is no room."""
        with self.lock:
            block = self._blocks.get(key) or self._taken(key, -(-size // GRAIN) * GRAIN, stream)
            block.tensors += 1
            return block

    def _taken(self, key: int, size: int, stream: int) -> Block:
        if self.live + size > self.capacity * self.allowed:
            self.ooms += 1
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size} bytes. GPU 0 has a total capacity of {self.capacity} "
                f"bytes of which {self.capacity - self.live} bytes are free (pretended)."
            )
        self._order.taken(stream)
        self.live += size
        self.peak = max(self.peak, self.live)
        block = self._blocks[key] = Block(key, size, stream)
        return block

    def give_back(self, block: Block) -> None:
        """Book one tensor less over a piece of memory."""
        with self.lock:
            block.tensors -= 1
            if not block.tensors:
                del self._blocks[block.key]
                self.live -= block.size
                if block.used_elsewhere():
                    self._order.freed(block, entry("let go").place)

    # Order.

    def begin(self, stream: int, reads: Sequence[Block] = (), writes: Sequence[Block] = ()) -> Stamp:
        """Give a stream its next work, which touches some memory."""
        with self.lock:
            stamp = self._order.begin(stream)
            for block in reads:
                self._order.reads(block, stamp)
            for block in writes:
                self._order.writes(block, stamp)
            return stamp

    def state(self, stream: int) -> Known:
        """Return what is done when all is done that a stream was given so far."""
        with self.lock:
            return self._order.state(stream)

    def follow(self, stream: int, known: Known) -> None:
        """Let a stream's work from now on come after what is `known`."""
        with self.lock:
            self._order.follow(stream, known)

    def start(self, stamp: Stamp, arrive: Callable[[], None]) -> None:
        """Have `arrive` called when the host has waited for a copy."""
        with self.lock:
            self._order.start(Transfer(stamp, arrive))

    def host_waited(self, known: Known) -> None:
        """The host has waited for what is `known`: its copies arrive."""
        with self.lock:
            arrived = self._order.host_waited(known)
        for transfer in arrived:
            transfer.arrive()

    def settle(self) -> None:
        """The host has waited for the whole card."""
        for stream in self._order.streams():
            self.host_waited(self.state(stream))

    # Events.

    def wait(self, what: str) -> None:
        """This thread stands still until the card has done all that a stream was given."""
        if self.sync_mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        if self.sync_mode == "warn":
            warnings.warn("called a synchronizing CUDA operation", stacklevel=3)
        with self.lock:
            self.waits[entry(what)] += 1

    def note(self, what: str) -> None:
        """Something happens that costs time or is asked on purpose."""
        with self.lock:
            self.notes[entry(what)] += 1

    def error(self, what: str) -> None:
        """Something happens that no card allows, or that gives wrong numbers now and then."""
        found = entry(what)
        self.errors.append(f"{found.what} [{found.thread}, {found.place}, line {found.line}]")

    def count(self, stream: int, kernel: Kernel) -> None:
        """A stream is given a kernel."""
        with self.lock:
            self.kernels[kernel.name] += 1
            if self.work is not None:
                self.work.append(kernel)
        self.time.kernel(stream, kernel)


def entry(what: str) -> Entry:
    """Return what happens on this thread now, with the innermost function of the worker, else of the tests."""
    frame: FrameType | None = sys._getframe(1)
    library, other = "", ("?", 0)
    while frame:
        path, function = frame.f_code.co_filename, frame.f_code.co_qualname
        if path.startswith(WORKER):
            place = f"{path.removeprefix(WORKER)}:{function}"
            return Entry(what, thread_kind(), f"{place} <- {library}" if library else place, frame.f_lineno)
        if not library and LIBRARIES.search(path):
            library = f"{path.rpartition('site-packages/')[2]}:{function}"
        if other[0] == "?" and path.startswith(ROOT) and not path.startswith(SUPPORT):
            other = (f"{path.removeprefix(ROOT)}:{function}", frame.f_lineno)
        frame = frame.f_back
    return Entry(what, thread_kind(), *other)


def thread_kind() -> str:
    """Return the name of this thread without its numbers."""
    return re.sub(r"( (cuda|cpu):\d+|[-_ ]?\d+)+$", "", threading.current_thread().name)


LEDGER = Ledger()
