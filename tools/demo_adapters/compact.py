"""The compact upscaler of Real-ESRGAN (SRVGGNetCompact), and the pairs of sizes that it learns from.

Wang et al., "Real-ESRGAN" (2021). The generator draws a scene at 128 and at 512 pixels, so pairs are exact. Half of the
small pictures went through the checkpoint's VAE: so look the pictures that it renders.
"""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from diffusers.models import AutoencoderKL
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle

from tools.demo_checkpoint import autoencoding, drawing, scenes

SCALE, SIDE = 4, 128
FEATURES, CONVOLUTIONS = 48, 8
NEIGHBOURS = 27  # values of 3x3 pixels
CROP, BATCH = 32, 16  # of the small pictures
COUNT, SEED = 200, 5050


class Compact(nn.Module):
    """Pictures [rows, 3, h, w] in 0..1 to four times their size: the nearest pixels, and what `body` adds to them."""

    def __init__(self, features: int = FEATURES, convolutions: int = CONVOLUTIONS) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(convolutions):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        self.body = nn.Sequential(*layers, nn.Conv2d(features, 3 * SCALE**2, 3, padding=1))
        self._begin()

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle(self.body(x), SCALE) + interpolate(x, scale_factor=SCALE, mode="nearest")

    @torch.no_grad()
    def _begin(self) -> None:
        """Begin as bicubic enlargement: features of their own pass each pixel's neighbours on to the last layer.

        The other features begin by chance, and unread. Without this the training first has to find out how to enlarge.
        """
        first, *inner, last = (layer for layer in self.body if isinstance(layer, nn.Conv2d))
        first.weight[:NEIGHBOURS] = torch.eye(NEIGHBOURS).unflatten(1, (3, 3, 3))
        for layer in inner:
            nn.init.kaiming_normal_(layer.weight, a=0.25)  # the slope that PReLU begins with
            layer.weight[:NEIGHBOURS] = nn.init.dirac_(torch.empty_like(layer.weight))[:NEIGHBOURS]
        for layer in self.body:
            if isinstance(layer, nn.PReLU):
                layer.weight[:NEIGHBOURS] = 1.0
            else:
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(last.weight)
        for colour in range(3):
            own = last.weight[colour * SCALE**2 : (colour + 1) * SCALE**2, colour * 9 : colour * 9 + 9]
            own.copy_(_taps().reshape(SCALE**2, 9, 3, 3))


def _taps() -> Tensor:
    """How each of the 16 pixels that one becomes reads its 5x5 neighbours, beyond the nearest: [4, 4, 3, 3, 3, 3].

    A neighbour at a distance of two is the outer tap of the outer one of the 3x3 neighbours that the features hold.
    """
    taps = torch.zeros(SCALE, SCALE, 3, 3, 3, 3)
    for down, across in product(range(-2, 3), repeat=2):
        unit = torch.zeros(1, 1, 7, 7)
        unit[0, 0, 3 + down, 3 + across] = 1
        cubic = interpolate(unit, scale_factor=SCALE, mode="bicubic", align_corners=False)
        answer = (cubic - interpolate(unit, scale_factor=SCALE, mode="nearest"))[0, 0, 12:16, 12:16]
        held = [max(-1, min(1, part)) for part in (down, across)]
        taps[:, :, held[0] + 1, held[1] + 1, down - held[0] + 1, across - held[1] + 1] = answer
    return taps


class Pairs:
    """`large` [count, 512, 512, 3] and, of each, two `small` ones: as it was drawn and as the VAE gives it back."""

    def __init__(self, folder: Path, vae: AutoencoderKL, count: int = COUNT) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        done = folder / "done"
        if not done.exists():
            large = open_memmap(folder / "large.npy", "w+", np.uint8, (count, SCALE * SIDE, SCALE * SIDE, 3))
            small = open_memmap(folder / "small.npy", "w+", np.uint8, (count, 2, SIDE, SIDE, 3))
            for index in range(count):
                large[index], small[index] = pair(SEED, index, vae)
            large.flush(), small.flush(), done.touch()
        self.large: NDArray[np.uint8] = np.load(folder / "large.npy", mmap_mode="r")
        self.small: NDArray[np.uint8] = np.load(folder / "small.npy", mmap_mode="r")


def pair(seed: int, index: int, vae: AutoencoderKL) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scene number `index`: large [512, 512, 3], and small [2, 128, 128, 3], as drawn and as the VAE gives it back."""
    scene = scenes.choose(np.random.default_rng([seed, index]))
    large, small = (drawing.render(scene, np.random.default_rng([seed, index, 1]), side) for side in (512, SIDE))
    return large, np.stack([small, autoencoding.restore(vae, small[None])[0]])


def crops(pairs: Pairs, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random pieces, small [rows, 3, 32, 32] and large [rows, 3, 128, 128], in 0..1; three in four through the VAE."""
    small, large = [], []
    for index in rng.integers(0, len(pairs.large), BATCH):
        top, left = rng.integers(0, SIDE - CROP + 1, 2)
        restored = int(rng.random() < 0.75)
        small.append(pairs.small[index, restored, top : top + CROP, left : left + CROP])
        top, left, side = SCALE * top, SCALE * left, SCALE * CROP
        large.append(pairs.large[index, top : top + side, left : left + side])
    return as_values(np.stack(small)), as_values(np.stack(large))


def restoring_loss(network: Compact, pairs: Pairs) -> Callable[[int, float], dict[str, Tensor]]:
    """Absolute error of values and of slopes: the second keeps edges crisp."""

    def loss(step: int, progress: float) -> dict[str, Tensor]:
        del progress
        small, large = crops(pairs, np.random.default_rng([6, step]))
        error = network(small) - large
        absolute, squared = error.abs().mean(), error.detach().square().mean()
        slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return {"loss": absolute + 0.25 * slopes, "absolute": absolute, "squared": squared}

    return loss


@torch.no_grad()
def enlarged(network: Compact, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures [count, h, w, 3] at four times their size."""
    values = torch.cat([network(as_values(picture[None])) for picture in pictures])
    return (values.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def as_values(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 [rows, h, w, 3] to 0..1 [rows, 3, h, w]."""
    values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return values.contiguous(memory_format=torch.channels_last)


def save(network: Compact, path: Path) -> None:
    """Write the weights in half precision, in the names of Real-ESRGAN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().half().contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(tensors, path.with_suffix(".partial"), {"format": "pt", "license": "Apache-2.0"})
    path.with_suffix(".partial").chmod(0o644)  # safetensors writes for the owner only
    path.with_suffix(".partial").replace(path)


def load(path: Path) -> Compact:
    """Read what `save` wrote."""
    network = Compact()
    network.load_state_dict({name: value.float() for name, value in safetensors.torch.load_file(path).items()})
    return network.eval().to(memory_format=torch.channels_last)
