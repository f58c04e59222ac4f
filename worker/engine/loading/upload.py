"""Weights from files to a card: read into pinned chunks, copied to the card, converted and laid out there.

All copies go in the order of the current stream and wait for no other stream.
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
from worker.engine.loading.flat import Layout
from worker.engine.transfers import hand_over, pinned_bytes, recorded_event

CHUNK_BYTES: Final = 128 * 2**20  # of pinned memory; two are used alternately
_ALIGNED_BYTES: Final = 16  # in a chunk: alignment for numbers of any format


@dataclass(frozen=True, eq=False)
class Piece:
    """Rows of a weight as they are stored, contiguous on the host, and their place on the card."""

    source: Tensor
    target: Tensor


def pieces(weights: Mapping[str, Tensor], views: Mapping[str, Tensor], most_bytes: int) -> Iterator[Piece]:
    """Yield the pieces that fill `views` with `weights`, in the order of the file.

    A piece has at most `most_bytes`, or one row if a row is larger.
    """
    for name in sorted(views, key=lambda name: weights[name].data_ptr()):
        source, target = torch.atleast_1d(weights[name].contiguous()), torch.atleast_1d(views[name])
        rows = max(1, most_bytes // max(1, source[:1].nbytes))
        yield from map(Piece, source.split(rows), target.split(rows))


def placed(
    weights: Mapping[str, Tensor], dtype: torch.dtype, to: Device, make_room: Callable[[int], object] = lambda _: None
) -> dict[str, Tensor]:
    """Return copies of `weights` in one buffer on a device, which the engine may use from then on.

    On a card the work goes on the current stream, and `make_room` is called with the bytes that it takes.
    """
    layout = Layout.of_weights(weights, dtype)
    if to.kind == "cuda":
        make_room(layout.bytes + chunk_bytes(weights))
    buffer = torch.empty(layout.bytes, dtype=torch.uint8, device=to.torch)
    views = layout.views(buffer)
    if to.kind == "cuda":
        upload(weights, views, to)
        hand_over([buffer], to)
    else:
        for name, view in views.items():
            view.copy_(weights[name])
    return views


def upload(weights: Mapping[str, Tensor], views: Mapping[str, Tensor], to: Device) -> None:
    """Fill `views`, on the card, with `weights`, on the host.

    Returns when all copies are queued; the memory of `weights` may change from then on.
    """
    size = chunk_bytes(weights)
    chunks = cycle([_Chunk(size, to), _Chunk(size, to)])
    for batch in _batches(pieces(weights, views, size), size):
        next(chunks).send(batch)


def chunk_bytes(weights: Mapping[str, Tensor]) -> int:
    """Return the size of the chunks for these weights; the card needs as much memory beside that of the weights."""
    total = sum(_aligned(weight.nbytes) for weight in weights.values())
    return min(CHUNK_BYTES, 1 << max(0, total - 1).bit_length())  # PyTorch rounds pinned memory up to that anyway


def _batches(some: Iterable[Piece], most_bytes: int) -> Iterator[list[Piece]]:
    """Yield as many pieces at a time as fit into a chunk; one at least."""
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
    """Pinned memory through which pieces go to the card, as many at a time as fit."""

    def __init__(self, size: int, to: Device) -> None:
        self._to = to
        self._memory = pinned_bytes(size, to)
        self._wait: Callable[[], object] = lambda: None

    def send(self, batch: list[Piece]) -> None:
        """Copy `batch` to the card; first sleep until the card has read the batch before it."""
        places = list(_places(batch))
        end = places[-1].stop
        self._wait()
        if end > len(self._memory):  # a row larger than a chunk
            self._memory = pinned_bytes(end, self._to)
        for piece, place in zip(batch, places, strict=True):
            self._memory[place].copy_(piece.source.reshape(-1).view(torch.uint8))
        staged = torch.empty(end, dtype=torch.uint8, device=self._to.torch)
        staged.copy_(self._memory[:end], non_blocking=True)
        self._wait = recorded_event().synchronize
        for piece, place in zip(batch, places, strict=True):
            piece.target.copy_(staged[place].view(piece.source.dtype).view(piece.source.shape))


def _places(batch: Iterable[Piece]) -> Iterator[slice]:
    """Yield the place of each piece in a chunk."""
    start = 0
    for piece in batch:
        yield slice(start, start + piece.source.nbytes)
        start += _aligned(piece.source.nbytes)


def _aligned(size: int) -> int:
    return math.ceil(size / _ALIGNED_BYTES) * _ALIGNED_BYTES
