"""A picture that is joined from overlapping tiles, band by band: only two bands of it are ever held as fractions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from shared.media.arrays import Pixels
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
            before = band[:, :, left:right].clone()
            band[:, :, left:end] = tile
            self._fade(before, band[:, :, left:end], dim=2)
            right = end
        if self._band is not None:
            self._fade(self._band[:, top - self._bottom :], band, dim=1)
        for channel, values in enumerate(band):
            self.pixels[top:bottom, :, channel] = values.mul(255).round_().to(torch.uint8).numpy()
        self._band, self._bottom = band, bottom

    def _fade(self, before: Tensor, after: Tensor, dim: int) -> None:
        """Turn the first places of `after` [3, h, w] along `dim` from `before`, which lies there too, into its own."""
        shared = max(0, before.shape[dim])
        places = torch.arange(1, shared + 1, dtype=after.dtype) - (shared - self._overlap) / 2
        weights = (places / (self._overlap + 1)).clamp(0, 1)
        first = after.narrow(dim, 0, shared)
        first.copy_(torch.lerp(before, first, weights[:, None] if dim == 1 else weights))
