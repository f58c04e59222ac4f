"""The noise of a picture: a matter of its own seed alone, drawn on the host, the same on every card."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

CHANNELS = 4
CELL = 8  # pixels of a latent cell's side


def draw(seed: int, width: int, height: int, count: int) -> Tensor:
    """Return `count` draws [count, 4, height/8, width/8] of unit noise from `seed`, on the host; the first one starts.

    Each is drawn by itself, as one asks a generator step by step: how many follow does not change the first ones.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (CHANNELS, height // CELL, width // CELL)
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(count)])


def draws_needed(sigmas: Sequence[float], *, is_ancestral: bool) -> int:
    """Return how many draws a render takes: its start, and one for each ancestral step that does not end at 0."""
    return 1 + (sum(sigma_next > 0 for _, sigma_next in pairwise(sigmas)) if is_ancestral else 0)
