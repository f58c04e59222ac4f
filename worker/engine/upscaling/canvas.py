"""A picture that is joined from overlapping tiles, band by band: only two bands of it are ever held as fractions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worker.engine.images.arrays import Pixels
from worker.engine.images.tiles import Span


class Canvas:
    """A picture of `height` x `width`. Tiles fade into each other over the middle `overlap` pixels that they share."""

    def __init__(self, height: int, width: int, overlap: int) -> None:
        self.pixels: Pixels = np.empty((height, width, 3), np.uint8)
        self._overlap = overlap
        self._band: Tensor | None = None  # the latest [3, rows, width]
        self._bottom = 0  # of that band

    def add(self, rows: Span, columns: Sequence[Span], tiles: Sequence[Tensor]) -> None:
        """Lay down a band of tiles [3, h, w] with values in 0..1, from left to right and below the band before."""
        top, bottom = rows
        band, right = tiles[0].new_empty(3, bottom - top, self.pixels.shape[1]), 0
        for (left, end), tile in zip(columns, tiles, strict=True):
            if right:
                tile = self._faded(band[:, :, left:right], tile, dim=2)  # noqa: PLW2901 - the same tile, at its place
            band[:, :, left:end] = tile
            right = end
        if self._band is not None:
            band = self._faded(self._band[:, top - self._bottom :], band, dim=1)
        self.pixels[top:bottom] = _to_bytes(band)
        self._band, self._bottom = band, bottom

    def _faded(self, before: Tensor, after: Tensor, dim: int) -> Tensor:
        """Return `after` [3, h, w]; its first places along `dim` are `before` at first and more and more itself."""
        shared = before.shape[dim]
        places = torch.arange(1, shared + 1, dtype=after.dtype) - (shared - self._overlap) / 2
        weights = (places / (self._overlap + 1)).clamp(0, 1)
        weights = weights[:, None] if dim == 1 else weights
        first, rest = after.split([shared, after.shape[dim] - shared], dim)
        return torch.cat([torch.lerp(before, first, weights), rest], dim)


def _to_bytes(values: Tensor) -> Pixels:
    """Return values in 0..1 [3, h, w] as bytes [h, w, 3]."""
    return values.mul(255).round_().to(torch.uint8).permute(1, 2, 0).numpy()
