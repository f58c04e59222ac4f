"""Small arithmetic on latents [channels, height, width], in cells: resized, cut, mixed."""

from __future__ import annotations

from typing import Final

from torch import Tensor
from torch.nn import functional

_INTERPOLATION: Final = {  # mode, and whether it is antialiased
    "Latent": ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
}


def resized(latent: Tensor, height: int, width: int, upscaler: str = "Latent") -> Tensor:
    """Return `latent` in a size of `height` x `width` cells, by one of the latent upscalers."""
    mode, is_antialiased = _INTERPOLATION[upscaler]
    size = (height, width)
    if latent.shape[1:] == size:
        return latent
    larger: Tensor = functional.interpolate(latent[None], size=size, mode=mode, antialias=is_antialiased)[0]
    return larger


def within(latent: Tensor, cells: int) -> Tensor:
    """Return `latent`, shrunk if its longer side passes `cells`: a decoder's work grows with every cell."""
    height, width = latent.shape[1:]
    scale = min(1.0, cells / max(height, width))
    height, width = (max(1, round(side * scale)) for side in (height, width))
    return resized(latent, height, width, "Latent (antialiased)")


def cut(latent: Tensor, cells_x: int, cells_y: int) -> Tensor:
    """Return the middle of `latent`, narrower by `cells_x` and lower by `cells_y`."""
    top, left = cells_y // 2, cells_x // 2
    return latent[:, top : top + latent.shape[1] - cells_y, left : left + latent.shape[2] - cells_x]


def mixed(inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
    """Return `inside` where `mask` [1, height, width] is 1 and `outside` where it is 0."""
    return inside * mask + outside * (1 - mask)
