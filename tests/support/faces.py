"""A photograph with a face, and networks that stand in for face restorers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from shared.media.arrays import Pixels
from tests.support.upscalers import Weights, write

EYES: Final = np.array([[204.0, 101.5], [247.0, 104.5]])  # of the photograph
MIDDLE: Final = (224, 124)
BOX: Final = (158, 25, 292, 205)  # around all that a restorer may change: left, top, right, bottom

_FILE: Final = Path(__file__).parents[1] / "data/astronaut.png"


def astronaut(side: int = 512) -> Image.Image:
    """Return the photograph, square."""
    picture = _photograph()
    return picture if side == picture.width else picture.resize((side, side), Image.Resampling.LANCZOS)


@cache
def _photograph() -> Image.Image:
    return Image.open(_FILE).convert("RGB")


def pixels(picture: Image.Image) -> Pixels:
    """Return the bytes of a picture [h, w, 3]."""
    return np.asarray(picture)


class Sharpens(nn.Module):
    """Stands in for a restorer: it sharpens, and records the shapes and fidelities that it was given."""

    scale = 1

    def __init__(self, amount: float = 2.0) -> None:
        super().__init__()
        self.amount = amount
        self.shapes: list[tuple[int, ...]] = []
        self.fidelities: list[float] = []

    def forward(self, given: Tensor, fidelity: float) -> Tensor:
        self.shapes.append(tuple(given.shape))
        self.fidelities.append(fidelity)
        soft = nn.functional.avg_pool2d(nn.functional.pad(given, (8, 8, 8, 8), mode="replicate"), 17, 1)
        return (given + self.amount * (given - soft)).clamp(0, 1)


class Paints(Sharpens):
    """Stands in for a restorer that makes a whole face of one colour."""

    def __init__(self, *colour: float) -> None:
        super().__init__()
        self.colour = colour

    def forward(self, given: Tensor, fidelity: float) -> Tensor:
        return torch.tensor(self.colour)[:, None, None].expand(given.shape).clone()


def write_small(path: Path, seed: int = 0) -> Path:
    """Write the file of a small face restorer of a known architecture, with weights drawn from a seed."""
    return write(path, small_weights(seed))


def small_weights(seed: int = 0) -> Weights:
    """Return the weights of a small RestoreFormer."""
    from spandrel.architectures.RestoreFormer import RestoreFormer  # noqa: PLC0415 - slow

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = RestoreFormer(
            n_embed=16, embed_dim=16, ch=32, out_ch=3, ch_mult=(1, 1, 1, 1, 1, 1), num_res_blocks=1,
            attn_resolutions=(16,), in_channels=3, resolution=512, z_channels=16, double_z=False, enable_mid=True,
            head_size=8,
        )  # fmt: skip
        return dict(network.state_dict())
