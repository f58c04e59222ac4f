"""The shape of a latent."""

from __future__ import annotations

from typing import Final

CHANNELS: Final = 4
MASK_CHANNELS: Final = 1 + CHANNELS  # an inpainting checkpoint also takes a mask and the latent of the masked picture
