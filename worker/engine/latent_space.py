"""The shape of a latent."""

from __future__ import annotations

CHANNELS = 4


MASK_CHANNELS = 1 + CHANNELS  # what an inpainting checkpoint sees beside the latent: mask, masked latent
