"""Weights from files to a card: read into pinned chunks, fetched by the card, converted and laid out there.

All of it goes in the order of the current stream, and nothing waits for any other stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Final

import torch
from torch import Tensor

from worker.engine.devices import Device
from worker.engine.transfers import pinned_bytes, recorded_event

CHUNK_BYTES: Final = 128 * 2**20  # of pinned memory; two are used by turns
_ALIGNED_BYTES: Final = 16  # in a chunk: what a number of any format may begin at


@dataclass(frozen=True, eq=False)
class Piece:
    """Rows of a weight as they are stored, contiguous on the host, and the place where they go."""

    source: Tensor
    target: Tensor


def pieces(weights: Mapping[str, Tensor], views: Mapping[str, Tensor], most_bytes: int) -> Iterator[Piece]:
    """Yield what fills `views` with `weights`, in the order in which they lie in their file.

    A piece has at most `most_bytes`, or one row where a row is larger.
    """
    for name in sorted(views, key=lambda name: weights[name].data_ptr()):
        source, target = torch.atleast_1d(weights[name].contiguous()), torch.atleast_1d(views[name])
        rows = max(1, most_bytes // max(1, source[:1].nbytes))
        yield from map(Piece, source.split(rows), target.split(rows))


def upload(weights: Mapping[str, Tensor], views: Mapping[str, Tensor], to: Device) -> None:
    """Have the card fill `views`, which lie on it, with `weights`, which lie on the host.

    Returns when all is on its way; the host's memory may change from then on.
    """
    size = chunk_bytes(weights)
    chunks = cycle([_Chunk(size, to), _Chunk(size, to)])
    for batch in _batches(pieces(weights, views, size), size):
        next(chunks).send(batch)


def chunk_bytes(weights: Mapping[str, Tensor]) -> int:
    """Return the size of the chunks that these go through: so much of the card is needed beside their place."""
    total = sum(_aligned(weight.nbytes) for weight in weights.values())
    return min(CHUNK_BYTES, 1 << max(0, total - 1).bit_length())  # what is pinned is rounded up to that anyway


def _batches(some: Iterable[Piece], most_bytes: int) -> Iterator[list[Piece]]:
    """Yield as many pieces at a time as find room in a chunk; one at least."""
    batch: list[Piece] = []
    room = most_bytes
    for piece in some:
        needed = _aligned(piece.source.nbytes)
        if batch and needed > room:
            yield batch
            batch, room = [], most_bytes
        batch.append(piece)
        room -= needed
    if batch:
        yield batch


class _Chunk:
    """Pinned memory through which pieces go to the card, as many at a time as find room."""

    def __init__(self, size: int, to: Device) -> None:
        self._to = to
        self._memory = pinned_bytes(size, to)
        self._wait: Callable[[], object] = lambda: None

    def send(self, batch: list[Piece]) -> None:
        """Send `batch`; before that wait, asleep, until the card has fetched what was sent before."""
        places = list(_places(batch))
        end = places[-1].stop
        self._wait()
        if end > len(self._memory):  # a row that is larger than chunks are
            self._memory = pinned_bytes(end, self._to)
        for piece, place in zip(batch, places, strict=True):
            self._memory[place].copy_(piece.source.reshape(-1).view(torch.uint8))
        staged = torch.empty(end, dtype=torch.uint8, device=self._to.torch)
        staged.copy_(self._memory[:end], non_blocking=True)
        self._wait = recorded_event().synchronize
        for piece, place in zip(batch, places, strict=True):
            piece.target.copy_(staged[place].view(piece.source.dtype).view(piece.source.shape))


def _places(batch: Iterable[Piece]) -> Iterator[slice]:
    """Yield where each piece lies in a chunk."""
    start = 0
    for piece in batch:
        yield slice(start, start + piece.source.nbytes)
        start += _aligned(piece.source.nbytes)


def _aligned(size: int) -> int:
    return math.ceil(size / _ALIGNED_BYTES) * _ALIGNED_BYTES
