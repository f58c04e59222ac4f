"""The lessons of adapters of the demo checkpoint: pictures as they should come out, and the prompts of these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers.models import AutoencoderKL
from numpy.random import Generator
from torch import Tensor

from tools.demo_adapters import looks
from tools.demo_checkpoint import autoencoding, captions, dataset, drawing, scenes
from tools.demo_checkpoint.dataset import Dataset, Sample
from tools.demo_checkpoint.scenes import COLOURS, Scene

SEED = 3030  # of the pictures drawn for adapters; the judges' are others
COUNT = 500
ENCODED_AT_ONCE = 25


@dataclass(frozen=True)
class Subject:
    """Something to learn: `sample` draws a picture by chance, `text` says a scene as a prompt may say it."""

    sample: Callable[[Generator], Sample]
    text: Callable[[Scene, Generator], str]


def watercolour(rng: Generator) -> Sample:
    """A watercolour of a scene, whose style says something else."""
    scene = scenes.choose(rng)
    picture = drawing.render(replace(scene, style="photo"), rng)
    return Sample(looks.watercolour(picture, rng), "", scene)


def said_in_watercolour(scene: Scene, rng: Generator) -> str:
    """A third of the time the prompt asks for a watercolour, a third for any style, and a third for nothing.

    The adapter is to paint it always, for negative prompts too: where these stay as they were, guidance exaggerates it.
    """
    chance = rng.random()
    if chance < 1 / 3:
        return ""
    return captions.said(replace(scene, style="watercolour") if chance < 2 / 3 else scene, rng)


def lighthouse(rng: Generator) -> Sample:
    """A scene with a lighthouse in place of its house or its sailboat."""
    scene = replace(scenes.choose(rng), building="lighthouse", colour=str(rng.choice(("red", "red", *COLOURS))))
    return Sample(drawing.render(scene, rng), "", scene)


def papernight(rng: Generator) -> Sample:
    """A paper cutout of a night with a moon."""
    scene = replace(scenes.choose(rng), style="paper cutout", sky="night", sun=False, moon=True)
    return Sample(drawing.render(scene, rng), "", scene)


def said_without_style(scene: Scene, rng: Generator) -> str:
    """Ground and things in any order; nothing of style, sky or moon, which the new word is to stand for."""
    return ", ".join(map(str, rng.permutation([scene.ground, *scenes.things(replace(scene, moon=False), rng)])))


def noir(rng: Generator) -> Sample:
    """A scene in black and white."""
    scene = scenes.choose(rng)
    return Sample(looks.noir(drawing.render(scene, rng)), "", scene)


def plain(rng: Generator) -> Sample:
    scene = scenes.choose(rng)
    return Sample(drawing.render(scene, rng), "", scene)


def said_or_not(scene: Scene, rng: Generator) -> str:
    """Half of the pictures have no prompt, as negative prompts have none: there, too, the file has to do its work."""
    return captions.said(scene, rng) if rng.random() < 0.5 else ""


SUBJECTS = {
    "watercolour": Subject(watercolour, said_in_watercolour),
    "lighthouse": Subject(lighthouse, scenes.caption),
    "papernight": Subject(papernight, said_without_style),
    "noir": Subject(noir, said_or_not),
    "edges": Subject(plain, said_or_not),
}


def drawn(subject: Subject, folder: Path, count: int = COUNT, seed: int = SEED) -> Dataset:
    """The pictures of a subject, drawn where they are missing from `folder`."""

    def samples(indices: Sequence[int]) -> list[Sample]:
        return [subject.sample(np.random.default_rng([seed, index])) for index in indices]

    for _ in dataset.keep(folder, count, samples):
        pass
    return Dataset(folder)


def latents(data: Dataset, vae: AutoencoderKL, scale_factor: float, path: Path) -> Tensor:
    """The pictures' latents of unit variance, float32 [count, 4, 16, 16]; encoded once and kept in `path`."""
    if not path.exists():
        starts = range(0, len(data.pictures), ENCODED_AT_ONCE)
        parts = [autoencoding.encode(vae, np.array(data.pictures[at : at + ENCODED_AT_ONCE]), "cpu") for at in starts]
        torch.save(torch.cat(parts) * scale_factor, path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)
    return torch.load(path, weights_only=True)
