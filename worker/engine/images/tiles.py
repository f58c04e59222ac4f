"""Large pictures in pieces: the places of overlapping tiles, and how they are joined without a seam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from shared.params.fields import Tiling

Span = tuple[int, int]  # from, up to
Tile = tuple[Span, Span]  # rows, columns


def tiles(height: int, width: int, side: int, overlap: int) -> list[Tile]:
    """Return tiles of at most `side` a side that cover `height` by `width`, neighbours sharing at least `overlap`."""
    return list(product(spans(height, side, overlap), spans(width, side, overlap)))


def spans(length: int, side: int, overlap: int) -> list[Span]:
    """Return spans of `side`, evenly spaced, that cover `length`; one span if it is no longer than that."""
    if length <= side:
        return [(0, length)]
    gaps = math.ceil((length - side) / (side - overlap))
    starts = [round(place * (length - side) / gaps) for place in range(gaps + 1)]
    return [(start, start + side) for start in starts]


def cut(whole: Tensor, tile: Tile, scale: int = 1) -> Tensor:
    """Return the part of `whole` [channels, h, w] under `tile`, stated in units of `scale`."""
    (top, bottom), (left, right) = tile
    return whole[:, top * scale : bottom * scale, left * scale : right * scale]


def joined(
    pieces: Sequence[Tensor], at: Sequence[Tile], overlap: int, scale: int = 1, wrap: tuple[int, int] = (0, 0)
) -> Tensor:
    """Return the whole [channels, h, w] of `pieces` that lie `at` these tiles, stated in units of `scale`.

    Overlapping pieces fade into each other over `overlap` units. At each edge, `wrap` (rows, columns) units repeat the
    other side and fade into it.
    """
    height, width = (max(tile[axis][1] for tile in at) * scale for axis in (0, 1))
    total = pieces[0].new_zeros(pieces[0].shape[0], height, width)
    weight = pieces[0].new_zeros(1, height, width)
    for piece, tile in zip(pieces, at, strict=True):
        rows, columns = (_fade(length, overlap * scale, piece.device) for length in piece.shape[1:])
        fade = rows[:, None] * columns
        cut(total, tile, scale).add_(piece * fade)
        cut(weight, tile, scale).add_(fade)
    margins = (wrap[0] * scale, wrap[1] * scale)
    return _folded(total, margins) / _folded(weight, margins)


def wrapped(x: Tensor, margin: tuple[int, int]) -> Tensor:
    """Return `x` [..., h, w] with `margin` (rows, columns) of its other side put before and after it."""
    rows, columns = margin
    return functional.pad(x, (columns, columns, rows, rows), mode="circular") if rows or columns else x


def along(tiling: Tiling, sides: tuple[int, int]) -> tuple[int, int]:
    """Return of (rows, columns) those along `tiling`, and 0 for the others: x runs over columns."""
    return sides[0] if tiling in {"y", "both"} else 0, sides[1] if tiling in {"x", "both"} else 0


def _folded(whole: Tensor, margins: tuple[int, int]) -> Tensor:
    """Return `whole` without its margins (rows, columns), which are added to the other side."""
    for axis, margin in zip((1, 2), margins, strict=True):
        inner = whole.narrow(axis, margin, whole.shape[axis] - 2 * margin).clone()
        inner.narrow(axis, inner.shape[axis] - margin, margin).add_(whole.narrow(axis, 0, margin))
        inner.narrow(axis, 0, margin).add_(whole.narrow(axis, whole.shape[axis] - margin, margin))
        whole = inner
    return whole


def _fade(length: int, over: int, device: torch.device) -> Tensor:
    """Return weights that rise over the first places and fall over the last ones."""
    places = torch.arange(length, device=device)  # made on the device: a copy would wait
    return ((torch.minimum(places, places.flip(0)) + 1) / (over + 1)).clamp(max=1)
