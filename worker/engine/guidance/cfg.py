"""Models, which samplers call. A model is a generator function (x, sigma) -> denoised; models wrap models."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from torch import Tensor

from shared.params.groups import Guidance
from worker.engine.architectures.weights import Weights
from worker.engine.requests import Asks, Denoise, Term
from worker.engine.sampling.algebra import Model, PairModel
from worker.engine.sigma_table import SigmaTable

if TYPE_CHECKING:
    from worker.engine.guidance.conditioning import Prompt

Weightings = tuple[tuple[float, ...], ...]
_FLAT: Final = 1e-8  # a deviation that nothing is divided by


def guided(  # noqa: PLR0913 - the parts of a model
    weights: Weights,
    prompt: Prompt,
    scale: float,
    guidance: Guidance,
    calls: int,
    *,
    count: Iterator[int] | None = None,
) -> Model:
    """Return the model that denoises towards `prompt`; a sampler will call it `calls` times.

    `count` numbers the calls from 0; models that share a count count their calls together.
    """
    guide = _Guide(weights, prompt, scale, guidance, calls, count or itertools.count())

    def model(x: Tensor, sigma: float) -> Asks[Tensor]:
        denoised, _ = yield from guide.sums(x, sigma, with_negative=False)
        return denoised

    return model


def guided_pair(  # noqa: PLR0913 - as above
    weights: Weights,
    prompt: Prompt,
    scale: float,
    guidance: Guidance,
    calls: int,
    *,
    count: Iterator[int] | None = None,
) -> PairModel:
    """Return the model of `guided` for a sampler that needs the negative prompt's own answer at every call.

    So that answer is never left out, not even if `guidance` skips it.
    """
    guide = _Guide(weights, prompt, scale, guidance, calls, count or itertools.count())

    def model(x: Tensor, sigma: float) -> Asks[tuple[Tensor, Tensor]]:
        denoised, unconditional = yield from guide.sums(x, sigma, with_negative=True)
        return denoised, unconditional

    return model


def switched(first: Model, second: Model, below_sigma: float) -> Model:
    """Return the model that is `first`, and `second` from `below_sigma` down: a refiner."""

    def model(x: Tensor, sigma: float) -> Asks[Tensor]:
        return (yield from (second if sigma <= below_sigma else first)(x, sigma))

    return model


def switch_sigma(table: SigmaTable, switch_at: float) -> float:
    """Return the sigma below which a refiner works, by the share of the timesteps after which it takes over."""
    last = len(table.values) - 1
    return table.sigma(last * (1 - switch_at)) if switch_at < 1 else 0.0


def towards(parts: Sequence[float], scale: float) -> tuple[float, ...]:
    """Return the weights of each part of a prompt, and last of the negative prompt, in the guided sum.

    Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598) towards all parts at once (Liu et al. 2022,
    arXiv:2206.01714): negative + Σ part's weight · scale · (part - negative). The weights sum to 1.
    """
    scaled = [part * scale for part in parts]
    return (*scaled, 1 - sum(scaled))


def without_negative(parts: Sequence[float]) -> tuple[float, ...]:
    """Return the weights of a sum without the negative prompt: the first part takes its place, at scale 1."""
    return (1 - sum(parts[1:]), *parts[1:], 0.0)


def negative_alone(parts: Sequence[float]) -> tuple[float, ...]:
    """Return the weights of the sum that is the negative prompt's own answer."""
    return (*(0.0 for _ in parts), 1.0)


def skips_negative(guidance: Guidance, call: int, calls: int, sigma: float) -> bool:
    """Return whether call `call`, from 0, of `calls` leaves the negative prompt out.

    The first share of the calls can, and those below a sigma: the odd ones, or all.
    """
    is_early = guidance.skip_early > 0 and call / calls <= guidance.skip_early
    is_low = sigma < guidance.skip_below_sigma and (guidance.skip_all_steps or call % 2 == 1)
    return is_early or is_low


def rescaled(guided: Tensor, plain: Tensor, still: Tensor, share: float) -> Tensor:
    """Return `guided` with the deviation of the network's prediction brought `share` of the way to that of `plain`.

    Lin et al. 2023 (arXiv:2305.08891, section 3.4) write it for the prediction of the network. That is a multiple of
    the difference between the denoised latent and `still`, which is denoised from a prediction of zero.
    """
    ratio = (plain - still).std() / (guided - still).std().clamp_min(_FLAT)
    return still + (guided - still) * (share * ratio + (1 - share))


@dataclass(frozen=True, eq=False)
class _Guide:
    """The parts of a guided model, with their sum."""

    weights: Weights
    prompt: Prompt
    scale: float
    guidance: Guidance
    calls: int
    numbers: Iterator[int]

    def sums(self, x: Tensor, sigma: float, *, with_negative: bool) -> Asks[tuple[Tensor, Tensor]]:
        """Return the guided sum, and the negative prompt's own answer if it is wanted (else the sum again).

        All sums come from one request, which is one step of the picture's progress.
        """
        call = next(self.numbers)
        prompts = (*self.prompt.conditional(call), self.prompt.unconditional(call))
        parts = [part.weight for part in prompts[:-1]]
        plain = without_negative(parts)
        skips = not with_negative and skips_negative(self.guidance, call, self.calls, sigma)
        main = plain if skips else towards(parts, self.scale)
        rescales = self.guidance.rescale > 0 and main != plain
        sums = [main, *([plain] if rescales else []), *([negative_alone(parts)] if with_negative else [])]
        terms, also = _weighted_terms(prompts, sums)
        calls = max(call + 1, self.calls)  # an adaptive sampler may take more than was planned
        answer = yield Denoise(self.weights, x, sigma, terms, call + 1, calls, also)
        guided, *others = answer if also else (answer,)
        if rescales:
            still = self.weights.prediction.still(x, sigma)
            guided = rescaled(guided, others[0], still, self.guidance.rescale)
        return guided, others[-1] if with_negative else guided


def _weighted_terms(prompts: Sequence[Term], sums: Sequence[Sequence[float]]) -> tuple[tuple[Term, ...], Weightings]:
    """Return the terms with a weight in any of these sums, with that of the first, and their weights in the others."""
    used = [place for place, weights in enumerate(zip(*sums, strict=True)) if any(weights)]
    main, *others = ([weights[place] for place in used] for weights in sums)
    terms = tuple(replace(prompts[place], weight=weight) for place, weight in zip(used, main, strict=True))
    return terms, tuple(tuple(weights) for weights in others)
