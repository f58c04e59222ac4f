"""A model of time for the pretended card: what copies, kernels and waits cost on an H100. No real time passes.

    with card_time.running(ledger, busy=card_time.Turns(0.121)) as clock:
        checkpoints.load(…)
        seconds, stall = clock.now(), clock.turns.stall()

Every thread of the host has a clock, and so has every stream: what a thread gives to a stream begins when the thread is
there and the stream is done with what it was given before; a wait sets the thread's clock to the end of what it waits
for. `Turns` stands for an engine that keeps its stream busy, two turns ahead: it is played beside what is measured, and
needs no thread. The figures are computed from published data of the card, not measured: replace them by measured
ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.support.card_ledger import Kernel, Ledger, Time

FLOPS: Final = 700e12  # a second, that good kernels of half precision reach
MEMORY: Final = 2.9e12  # bytes a second that they reach
SHARE: Final = {"conv": 0.55, "gemm": 0.65}  # of FLOPS
HEADS: Final = {64: 0.45, 96: 0.5, 128: 0.5, 192: 0.4, 256: 0.4}
"""The share of FLOPS by the widths of heads that attention's kernels are built for; other heads are filled up."""
OTHER_SHARE: Final = 0.4
BANDWIDTH: Final = {"pointwise": 0.8, "norm": 0.45, "strided": 0.35}  # of MEMORY
GAP: Final = 1e-6  # seconds between two kernels of a stream
CALIBRATION: Final = 1.13  # what an A100 was published to take for a call of 32 rows, over what this gives for it

LAUNCH: Final = 22e-6  # seconds of the host for a kernel, Python and all: 18 ms for a call of 824
COPY_CALL: Final = 8e-6  # seconds of the host for a copy
PINNED: Final = 55e9  # bytes a second over PCIe 5: 2.13 GB in 39 ms
PAGEABLE: Final = 8e9  # bytes a second through the driver's own pinned memory
STAGED: Final = 64 * 1024  # bytes that a driver takes along with the command itself
DEFAULT_STREAM: Final = 0


class Turns:
    """An engine that gives its stream a turn of so many `seconds` whenever fewer than `ahead` are unfinished.

    Its work and that of other streams share the card's processors.
    """

    def __init__(self, seconds: float, ahead: int = 2) -> None:
        self.seconds = seconds
        self.ahead = ahead
        self.ends: list[float] = []  # of each turn, as far as time has been followed

    def asked_next(self) -> float:
        """Return when the host gives the card its next turn."""
        return self.ends[-self.ahead] if len(self.ends) >= self.ahead else 0.0

    def delay(self, since: float, seconds: float) -> None:
        """Let all turns that end after a moment end later."""
        self.ends = [end + seconds if end > since else end for end in self.ends]

    def stall(self) -> float:
        """Return by how many seconds the worst turn ended later behind the one before than a turn takes."""
        gaps = [later - sooner for sooner, later in zip(self.ends, self.ends[1:], strict=False)]
        return max(gaps, default=self.seconds) - self.seconds


class Clock(Time):
    """The time of each thread and each stream, in seconds since it was started. Safe for threads."""

    def __init__(self, turns: Turns | None = None, scale: float = 1.0) -> None:
        self.turns = turns
        self._scale = scale
        self._lock = threading.RLock()
        self._hosts: dict[int, float] = {}
        self._streams: dict[int, float] = {}
        self._lanes: dict[bool, float] = {}  # the copy engines: one to the card, one from it

    def now(self) -> float:
        """Return where this thread is. One that appears begins where the latest is: somebody has started it."""
        with self._lock:
            return self._hosts.setdefault(threading.get_ident(), max(self._hosts.values(), default=0.0))

    def spend(self, seconds: float) -> None:
        """Let this thread work for so long on the host: read a file, say."""
        self.wait(self.now() + seconds)

    def catch_up(self) -> None:
        """Let this thread be where the latest is: it has waited for that one."""
        with self._lock:
            self.wait(max(self._hosts.values(), default=0.0))

    def wait(self, until: float) -> None:
        """Let this thread be no earlier than `until`."""
        with self._lock:
            self._hosts[threading.get_ident()] = max(self.now(), until)

    def wait_for_all(self) -> None:
        """Let this thread wait for all that the card was given."""
        with self._lock:
            self._follow_turns()
            self.wait(max(self._streams.values(), default=0.0))

    def mark(self, stream: int) -> float:
        """Return when all is done that a stream was given."""
        with self._lock:
            self._follow_turns()
            return max(self.now(), self._streams.get(stream, 0.0))

    def hold(self, stream: int, until: float) -> None:
        """Let a stream go on no earlier than `until`."""
        with self._lock:
            self._streams[stream] = max(self.mark(stream), until)

    def kernel(self, stream: int, kernel: Kernel) -> None:
        """Let a stream do a kernel."""
        with self._lock:
            seconds = kernel_seconds(kernel, self._scale)
            begin = self.mark(stream)
            self.spend(LAUNCH)
            if self.turns and stream != DEFAULT_STREAM:
                self._delay_turns(begin, seconds)
                seconds *= 2  # half of the card is the engine's
            self._streams[stream] = begin + seconds + GAP

    def copy(self, stream: int, size: int, *, to_card: bool, is_pinned: bool, is_blocking: bool) -> None:
        """Let a stream do a copy; what is pageable passes through the hands of the host."""
        with self._lock:
            size = round(size * self._scale)
            self.spend(COPY_CALL)
            if not is_pinned and not is_blocking and size > STAGED:
                self.spend(size / PAGEABLE)
            begin = max(self.mark(stream), self._lanes.get(to_card, 0.0))
            through_host = not is_pinned and (is_blocking or not to_card)
            end = begin + size / (PAGEABLE if through_host else PINNED)
            self._streams[stream] = self._lanes[to_card] = end

    def _follow_turns(self) -> None:
        """Give the engine's stream the turns that it has been given by now."""
        if self.turns is None:
            return
        while (asked := self.turns.asked_next()) <= self.now():
            end = max(asked, self._streams.get(DEFAULT_STREAM, 0.0)) + self.turns.seconds
            self._streams[DEFAULT_STREAM] = end
            self.turns.ends.append(end)

    def _delay_turns(self, since: float, seconds: float) -> None:
        if self.turns:
            self.turns.delay(since, seconds)
            self._streams[DEFAULT_STREAM] = self._streams.get(DEFAULT_STREAM, 0.0) + seconds


def kernel_seconds(kernel: Kernel, scale: float = 1.0) -> float:
    """Return what a kernel takes: as long as its arithmetic or its memory does, whichever is longer."""
    if not kernel.flops:
        return CALIBRATION * scale * kernel.bytes / (MEMORY * BANDWIDTH.get(kernel.kind, 0.8))
    if kernel.kind.startswith("attention"):
        width = int(kernel.kind.removeprefix("attention"))
        filled = next((one for one in HEADS if width <= one), width)
        work = kernel.flops * filled / width / (FLOPS * HEADS.get(filled, OTHER_SHARE))
        moved = kernel.bytes / MEMORY
    else:
        work = kernel.flops / (FLOPS * SHARE.get(kernel.kind, OTHER_SHARE))
        moved = kernel.bytes / (MEMORY * 0.8)
    return CALIBRATION * scale * max(work, moved)


@contextmanager
def running(ledger: Ledger, *, busy: Turns | None = None, scale: float = 1.0) -> Iterator[Clock]:
    """Within the block the ledger's card takes time, beside the turns of an engine where it is `busy`.

    `scale`: how many times as many bytes and operations things stand for, where a small checkpoint plays a large one.
    """
    before, ledger.time = ledger.time, Clock(busy, scale)
    try:
        yield ledger.time
    finally:
        ledger.time = before
