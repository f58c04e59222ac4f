"""How a picture is made: what a run is seen to start from, some of its steps, and one guided call asked again.

All of it is made after the picture, of what was kept of its run, so that the picture does not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from torch import Tensor

from shared.media.arrays import Pixels
from shared.media.making import Making, PromptPart, Pull, Stage, Token
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS
from shared.prompts import composable, editing
from shared.prompts.learned_words import VOCABULARY
from shared.prompts.tokenizer import MAX_CHUNKS
from worker.engine.architectures.weights import Weights
from worker.engine.images import latents
from worker.engine.images.previews import mapped
from worker.engine.loop.runs import Step
from worker.engine.pipelines.film import Reel
from worker.engine.pipelines.inputs import Kit
from worker.engine.requests import Asks, Denoise, Read, Work
from worker.engine.vae import decoded

MOST_STAGES: Final = 6
LARGEST_SIDE: Final = 256  # pixels: as large as a stage is decoded
MOST_CELLS: Final = 128  # of the side of a latent that is shown
_PULLS_AT: Final = 3  # the guided call is of the first third: there it decides what the picture shows


class Witness:
    """Watches a run, and keeps what shows how its picture is made."""

    def __init__(self) -> None:
        self.reel = Reel(MOST_STAGES, with_noisy=True)
        self.first: Denoise | None = None
        self.guided: Denoise | None = None

    def take(self, step: Step) -> None:
        """Record a step of the run, in order. Returns at once: the engine's thread calls it."""
        self.reel.take(step)
        request = step.request
        if request is None:
            return
        if self.first is None:
            self.first = replace(request, x=request.x.clone())
        is_early = step.index <= 1 + step.steps // _PULLS_AT and not step.is_second_pass
        is_guided = len(request.terms) > 1 and any(term.is_negative for term in request.terms)
        if is_guided and (self.guided is None or is_early):
            self.guided = replace(request, x=request.x.clone())


def made(params: RenderParams, kit: Kit, witness: Witness) -> Asks[Making | None]:
    """Return how the picture of `params` was made; None if its run took no step."""
    first = witness.first
    if first is None:
        return None
    start = yield from _shown(first.weights, first.x, first.sigma)
    stages = []
    for shot in witness.reel.shots():
        weights = kit.of_pass(is_second=shot.is_second_pass).tiled(params.tiling)
        latent = yield from _shown(weights, shot.noisy if shot.noisy is not None else shot.latent, shot.sigma)
        expected = yield from decoded(weights, _small(weights, shot.latent))
        stages.append(Stage(shot.step, shot.steps, shot.sigma, shot.is_second_pass, latent, expected))
    pull = (yield from _pulled(params, kit, witness.guided)) if witness.guided else None
    prompt, negative = yield Work(partial(_prompts, params, kit.weights))
    return Making(start, tuple(stages), pull, prompt, negative)


def _shown(weights: Weights, x: Tensor, sigma: float) -> Asks[Pixels]:
    """Return a noisy latent as the network sees it, a pixel for each cell; a large one by some of its cells."""
    height, width = x.shape[1:]
    share = min(1.0, MOST_CELLS / max(height, width))
    size = (max(1, round(height * share)), max(1, round(width * share)))
    unit = latents.resized(x / weights.prediction.scale(sigma), *size, "Latent (nearest)")
    pixels: Pixels = yield Read(partial(mapped, unit, weights.latent_rgb))
    return pixels


def _small(weights: Weights, latent: Tensor) -> Tensor:
    return latents.within(latent, LARGEST_SIDE // weights.latent.cell)


def _pulled(params: RenderParams, kit: Kit, request: Denoise) -> Asks[Pull]:
    """Return what a guided call expects with the prompt and without it, by the same call with other weights."""
    positive = [0.0 if term.is_negative else term.weight for term in request.terms]
    if not sum(positive):  # parts that weigh each other out
        positive = [float(place == 0) for place in range(len(positive))]
    shares = [weight / sum(positive) for weight in positive]
    terms = tuple(replace(term, weight=share) for term, share in zip(request.terms, shares, strict=True))
    negative = tuple(float(term.is_negative) for term in request.terms)
    with_prompt, without = yield replace(request, terms=terms, also=(negative,))
    weights = kit.of_pass(is_second=request.is_second_pass).tiled(params.tiling)
    prompted = yield from decoded(weights, _small(weights, with_prompt))
    unprompted = yield from decoded(weights, _small(weights, without))
    return Pull(request.call, request.sigma, prompted, unprompted)


def _prompts(params: RenderParams, weights: Weights) -> tuple[tuple[PromptPart, ...], tuple[PromptPart, ...]]:
    """Return both prompts in the tokens that they begin with."""
    parts = composable.read(params.prompt), composable.read(params.negative_prompt, is_negative=True)
    positive, negative = (tuple(_tokens(params, weights, part) for part in one) for one in parts)
    return positive, negative


def _tokens(params: RenderParams, weights: Weights, part: composable.Part) -> PromptPart:
    calls = params.steps * SAMPLERS[params.sampler].order
    text = next(iter(editing.schedule(part.text, calls))).text
    chunks = weights.tokenizer.chunks(text, params.emphasis, weights.words)[:MAX_CHUNKS]
    return PromptPart(part.weight, tuple(_named(weights, chunk.tokens, chunk.weights) for chunk in chunks))


def _named(weights: Weights, tokens: Sequence[int], shares: Sequence[float]) -> tuple[Token, ...]:
    return tuple(
        Token(token, weights.tokenizer.text(token), share) if token < VOCABULARY else Token(None, "", share)
        for token, share in zip(tokens, shares, strict=True)
    )
