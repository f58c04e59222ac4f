"""What of a card's work may overlap, and whether memory is touched in spite of it.

On a card two streams run beside each other, and both beside the host, unless something orders them. Here all is
computed at once, so a missing wait would show in no value. Each work of a stream therefore has a number, and each
stream and the host know the numbers that they have waited for: what touches memory without knowing of the work on it
before is an error. The host is one: what a thread has waited for, all threads know.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

Known = dict[int, int]  # stream -> how many of its works are done


class Stamp(NamedTuple):
    """One work of one stream."""

    stream: int
    number: int

    def is_in(self, known: Known) -> bool:
        """Whether it is done where so much is known to be done."""
        return known.get(self.stream, 0) >= self.number


@dataclass(eq=False)
class Block:
    """One piece of the card's memory, which any number of tensors share."""

    key: int
    size: int
    stream: int  # that it was taken on: the allocator gives it to what that stream is given next
    tensors: int = 0
    written: Stamp | None = None
    read: Known = field(default_factory=dict)  # stream -> its latest work that read or wrote
    recorded: set[int] = field(default_factory=set)  # streams that `record_stream` told the allocator of

    def used_elsewhere(self) -> list[Stamp]:
        """The latest works of other streams that the allocator does not know."""
        return [Stamp(*one) for one in self.read.items() if one[0] not in self.recorded | {self.stream}]


class Transfer(NamedTuple):
    """A copy between the card and pinned memory that may still be under way."""

    stamp: Stamp
    arrive: Callable[[], None]  # called once the host has waited for it


class Order:
    """The waits of streams and threads. Not safe for threads; the ledger is."""

    def __init__(self, error: Callable[[str], None]) -> None:
        self._error = error
        self._works: Counter[int] = Counter()  # of each stream
        self._known: defaultdict[int, Known] = defaultdict(dict)  # by each stream
        self._host: Known = {}
        self._freed: defaultdict[int, list[tuple[Block, str]]] = defaultdict(list)  # by stream: used by others as well
        self._under_way: list[Transfer] = []

    def begin(self, stream: int) -> Stamp:
        """Number the next work of a stream, which comes after all that the host knows to be done."""
        self._works[stream] += 1
        return Stamp(stream, self._works[stream])

    def reads(self, block: Block, stamp: Stamp) -> None:
        """A work reads a piece of memory."""
        if block.written and not self._follows(stamp, block.written):
            self._error(f"stream {stamp.stream} reads what stream {block.written.stream} may still write")
        block.read[stamp.stream] = stamp.number

    def writes(self, block: Block, stamp: Stamp) -> None:
        """A work writes a piece of memory."""
        for stream, number in block.read.items():
            if not self._follows(stamp, Stamp(stream, number)):
                self._error(f"stream {stamp.stream} writes over what stream {stream} may still use")
        block.written = stamp
        block.read[stamp.stream] = stamp.number

    def freed(self, block: Block, place: str) -> None:
        """Nothing holds a piece of memory any more that another stream may still use."""
        self._freed[block.stream].append((block, place))

    def taken(self, stream: int) -> None:
        """A stream is given memory, which may be any that was taken on it and let go: is all use of it over?"""
        for block, place in self._freed.pop(stream, ()):
            late = [one.stream for one in block.used_elsewhere() if not self._follows(Stamp(stream, 0), one)]
            if late:
                self._error(f"memory let go in {place} is taken again while stream {late[0]} may still use it")

    def state(self, stream: int) -> Known:
        """The works that are done when all work of a stream so far is done."""
        return {**self._news(self._known[stream]), stream: self._works[stream]}

    def follow(self, stream: int, known: Known) -> None:
        """From now on the stream's work comes after what is `known`."""
        self._known[stream] = self._news(self._known[stream])
        merge(self._known[stream], self._news(known))

    def start(self, transfer: Transfer) -> None:
        """A copy is under way, and arrives when the host has waited for it."""
        self._under_way.append(transfer)

    def host_waited(self, known: Known) -> list[Transfer]:
        """The host has waited for what is `known`; return what has arrived."""
        merge(self._host, known)
        arrived = [one for one in self._under_way if one.stamp.is_in(self._host)]
        self._under_way = [one for one in self._under_way if not one.stamp.is_in(self._host)]
        return arrived

    def streams(self) -> list[int]:
        """All streams that were given work."""
        return list(self._works)

    def _news(self, known: Known) -> Known:
        """What of `known` the host does not know: all know the rest."""
        return {stream: number for stream, number in known.items() if number > self._host.get(stream, 0)}

    def _follows(self, stamp: Stamp, other: Stamp) -> bool:
        is_known = other.is_in(self._known[stamp.stream]) or other.is_in(self._host)
        return other.stream == stamp.stream or is_known


def merge(into: Known, other: Known) -> None:
    """Let `into` know what `other` knows too."""
    for stream, number in other.items():
        into[stream] = max(number, into.get(stream, 0))
