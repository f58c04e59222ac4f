"""Models: what samplers call. A model is a generator function (x, sigma) -> denoised; models wrap models."""

from __future__ import annotations

from itertools import count

from torch import Tensor

from worker.engine.requests import Asks, Denoise, Term
from worker.engine.samplers import Model
from worker.engine.weights import Weights


def terms(prompt: Tensor, negative: Tensor, scale: float) -> tuple[Term, ...]:
    """Return classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598) as a sum over contexts [tokens, width].

    The weights sum to 1. What would weigh nothing is left out: at scale 1 the negative prompt costs no row.
    """
    both = (Term(scale, prompt), Term(1 - scale, negative))
    return tuple(term for term in both if term.weight != 0)


def guided(weights: Weights, conditioning: tuple[Term, ...], calls: int) -> Model:
    """Return the model that denoises towards `conditioning`; a sampler will call it `calls` times."""
    numbers = count(1)

    def model(x: Tensor, sigma: float) -> Asks[Tensor]:
        denoised: Tensor = yield Denoise(weights, x, sigma, conditioning, next(numbers), calls)
        return denoised

    return model
