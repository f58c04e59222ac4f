"""The film of a run: its denoised picture at some of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from shared.media.arrays import Pixels
from shared.params.fields import Tiling
from worker.engine.images import latents
from worker.engine.loop.runs import Step
from worker.engine.pipelines.inputs import Kit
from worker.engine.requests import Asks
from worker.engine.vae import decoded

MOST_SHOTS: Final = 15  # and the finished picture
LARGEST_SIDE: Final = 512  # pixels: as large as a film is shown


@dataclass(frozen=True, eq=False)
class Shot:
    """A denoised latent and its step."""

    step: int  # from 1
    steps: int
    latent: Tensor  # [channels, h/cell, w/cell]
    is_second_pass: bool = False
    noisy: Tensor | None = None  # what went in, if that is kept
    sigma: float = 0.0


class Reel:
    """Keeps evenly spaced steps of a run of any length: when there are too many, every second one is dropped."""

    def __init__(self, most: int = MOST_SHOTS, *, with_noisy: bool = False) -> None:
        self._most = most
        self._with_noisy = with_noisy
        self._every = 1
        self._seen = 0
        self._shots: list[Shot] = []
        self.steps = 0  # of the run so far

    def take(self, step: Step) -> None:
        """Record a step of the run, in order. Returns at once: the engine's thread calls it.

        The last step is left out: the finished picture shows it.
        """
        self.steps = step.index
        if step.index == step.steps:
            return
        if self._seen % self._every == 0:
            # A copy: the engine's tensor may be a view of one for many pictures.
            noisy = step.x.clone() if self._with_noisy else None
            sigma = step.request.sigma if step.request else 0.0
            self._shots.append(Shot(step.index, step.steps, step.denoised.clone(), step.is_second_pass, noisy, sigma))
        self._seen += 1
        if len(self._shots) == 2 * self._most:
            self._shots = self._shots[::2]
            self._every *= 2

    def shots(self) -> list[Shot]:
        """Return at most `most` evenly spaced shots, from the first on."""
        return self._shots[:: 1 + (len(self._shots) > self._most)]


def developed(kit: Kit, tiling: Tiling, shots: Sequence[Shot]) -> Asks[list[Pixels]]:
    """Return small pictures of `shots`, each by its own pass's VAE; one at a time, to give way to other runs."""
    pictures = []
    for shot in shots:
        weights = kit.of_pass(is_second=shot.is_second_pass).tiled(tiling)
        small = latents.within(shot.latent, LARGEST_SIDE // weights.latent.cell)
        pictures.append((yield from decoded(weights, small)))
    return pictures
