"""Pipelines: how a picture comes about. A pipeline never sees a batch, a thread or another picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import RenderError
from shared.params import RenderParams
from shared.samplers import SAMPLERS as FACTS
from worker.engine import schedules
from worker.engine.devices import pinned, sent
from worker.engine.guidance import guided, terms
from worker.engine.noise import draw, draws_needed
from worker.engine.requests import Asks, Embed, ToPixels, Work
from worker.engine.samplers import SAMPLERS
from worker.engine.weights import Weights

Picture = NDArray[np.uint8]  # [height, width, 3], red, green, blue


@dataclass(frozen=True)
class Kit:
    """What a pipeline renders with."""

    weights: Weights


def text_to_image(params: RenderParams, kit: Kit) -> Asks[Picture]:
    """Return the picture that resolved parameters describe. Raises RenderError where the result is no picture."""
    weights, facts = kit.weights, FACTS[params.sampler]
    sigmas = schedules.sigmas(weights.sigmas, params)
    count = draws_needed(sigmas, is_ancestral=facts.is_ancestral)
    draws, (prompt, negative) = yield (
        Work(lambda: pinned(draw(params.seed, params.width, params.height, count), weights.device)),
        Embed(weights, (params.prompt, params.negative_prompt)),
    )
    noise = (sent(one, weights.device) for one in draws)  # each when its step asks: together they are large
    model = guided(weights, terms(prompt, negative, params.cfg_scale), len(sigmas) - 1)
    x = next(noise) * start_scale(sigmas[0], is_unit=facts.starts_at_unit_variance)
    latent = yield from SAMPLERS[params.sampler](model, x, sigmas, lambda *_: next(noise))
    pixels = yield ToPixels(weights, latent)
    result: Picture = yield Work(partial(picture, latent, pixels))
    return result


def start_scale(sigma: float, *, is_unit: bool) -> float:
    """Return what unit noise is multiplied with to stand at `sigma`.

    A sampler that starts at unit variance takes the noise for the whole noisy latent at the variance-preserving scale.
    """
    return math.hypot(1, sigma) if is_unit else sigma


def picture(latent: Tensor, pixels: Tensor) -> Picture:
    """Return pixels [3, h, w] in -1..1 as bytes. Raises RenderError where they or the latent are not finite."""
    values = pixels.cpu().numpy()
    if not (np.isfinite(values).all() and latent.isfinite().all()):
        raise RenderError(
            "the picture came out as numbers that are not finite: this checkpoint overflows in this precision "
            "(float32 or bfloat16 hold more), or its weights are damaged"
        )
    return np.rint((values.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
