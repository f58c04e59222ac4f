"""What the judge learns from: the generator's scenes, also as the VAE gives them back, blurred, noisy and compressed.

It never sees a picture that was rendered from a prompt. Half of what it sees is softened, so that a soft picture is
judged by what it shows.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers.models import AutoencoderKL
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from tools.demo_checkpoint import autoencoding
from tools.demo_checkpoint.dataset import Dataset, Sample, sample
from tools.demo_checkpoint.judging import CHOICES, THINGS, Network, parted, pixels
from tools.demo_checkpoint.scenes import Scene
from tools.demo_checkpoint.training import half_precision

BATCH, ROWS = 32, 10
SEED = 4048  # of the pictures drawn for the judge alone; every third is a combination kept out of the other trainings
NOT_THERE = -1  # a choice that is not to be judged: the colour of no house


def lesson(network: Network, sources: Sequence[Dataset], device: str) -> Callable[[int, float], dict[str, Tensor]]:
    """Cross-entropy of all words over random pictures of all sources alike."""
    labels = [[targets(scene) for scene in source.scenes] for source in sources]

    def loss(step: int, progress: float) -> dict[str, Tensor]:
        del progress
        rng = np.random.default_rng([3, step])
        chosen = [
            (source, rng.integers(len(sources[source].pictures))) for source in rng.integers(0, len(sources), BATCH)
        ]
        seen = np.stack([softened(sources[source].pictures[row], rng) for source, row in chosen])
        there, numbers = (
            torch.tensor(part).to(device) for part in zip(*(labels[s][r] for s, r in chosen), strict=True)
        )
        with half_precision(device):
            logits = network(pixels(seen).to(device))
        things, *choices = parted(logits)
        presence = binary_cross_entropy_with_logits(things, there)
        chance = sum(cross_entropy(part, numbers[:, n], ignore_index=NOT_THERE) for n, part in enumerate(choices))
        return {"loss": 4 * presence + chance, "presence": presence, "choices": chance}

    return loss


def targets(scene: Scene) -> tuple[list[float], list[int]]:
    """Whether each thing is there, and the number of each choice."""
    chosen = {"ground": scene.ground, "sky": scene.sky, "style": scene.style, "colour": scene.colour}
    numbers = [words.index(chosen[name]) for name, words in CHOICES.items()]
    there = [float(thing in scene.traits()) for thing in THINGS]
    return there, numbers if scene.building else [*numbers[:-1], NOT_THERE]


def softened(picture: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """A picture, mirrored half of the time; half of the time blurred, noisy, lighter or darker, and compressed."""
    flipped = picture[:, ::-1] if rng.random() < 0.5 else picture
    if rng.random() < 0.5:
        return flipped
    image = Image.fromarray(np.ascontiguousarray(flipped)).filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.6))))
    values = np.asarray(image, np.float32) * np.float32(rng.uniform(0.88, 1.1))
    values += np.float32(rng.uniform(0, 9)) * rng.standard_normal(values.shape, np.float32)
    with io.BytesIO() as file:
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=int(rng.integers(30, 95)))
        return np.asarray(Image.open(file))


def restored(autoencoder: AutoencoderKL, device: str) -> Callable[[range], list[Sample]]:
    """Draws samples as the VAE gives them back, each second one from latents with a tenth of noise in them."""

    def samples(indices: range) -> list[Sample]:
        drawn = [sample(SEED, index, held_out=index % 3 == 0) for index in indices]
        pictures = np.stack([one.picture for one in drawn])
        back = [_back(autoencoder, pictures[row : row + ROWS], device) for row in range(0, len(drawn), ROWS)]
        return [one._replace(picture=picture) for one, picture in zip(drawn, np.concatenate(back), strict=True)]

    return samples


@torch.no_grad()
def _back(autoencoder: AutoencoderKL, pictures: NDArray[np.uint8], device: str) -> NDArray[np.uint8]:
    latents = autoencoding.encode(autoencoder, pictures, device)
    latents[::2] += 0.1 * latents.std() * torch.randn(latents[::2].shape, generator=torch.Generator().manual_seed(0))
    with half_precision(device):
        return autoencoding.as_pictures(autoencoder.decode(latents.to(device)).sample)
