"""What a run may ask of the card: six requests. A pipeline yields one, or a tuple of them, and is sent the answers.

Shapes are those of one picture: no request knows of rows, batches or other pictures. Requests are immutable, and so are
the tensors in them: whoever computes from `x` makes a new one. A request that cannot be answered raises at its `yield`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from worker.engine.weights import Weights


@dataclass(frozen=True, eq=False)
class Term:
    """One conditioning of a guided call and its weight in the sum."""

    weight: float
    context: Tensor  # [tokens, width]


@dataclass(frozen=True, eq=False)
class Embed:
    """Texts -> one context [tokens, width] for each, `tokens` a multiple of 77."""

    weights: Weights
    texts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Denoise:
    """A noisy latent -> the denoised one [4, h/8, w/8], float32: the weighted sum over the terms; weights sum to 1.

    This is model call `call` of `calls` of its run, from 1.
    """

    weights: Weights
    x: Tensor  # [4, h/8, w/8], float32
    sigma: float
    terms: tuple[Term, ...]
    call: int
    calls: int


@dataclass(frozen=True, eq=False)
class ToLatent:
    """Pixels [3, h, w] in -1..1 -> the latent that the decoder takes for them [4, h/8, w/8]."""

    weights: Weights
    pixels: Tensor


@dataclass(frozen=True, eq=False)
class ToPixels:
    """A latent [4, h/8, w/8] -> pixels [3, h, w], float32, about -1..1."""

    weights: Weights
    latent: Tensor


@dataclass(frozen=True, eq=False)
class Apply:
    """Pixels [3, h, w] in 0..1 -> what a network of its own makes of them: an upscaler, a face restorer."""

    network: nn.Module
    pixels: Tensor


@dataclass(frozen=True, eq=False)
class Work:
    """A function of no arguments -> what it returns, called off the engine's thread: anything slow on the host, or a
    number read from the card.
    """

    function: Callable[[], Any]


Request = Embed | Denoise | ToLatent | ToPixels | Apply | Work

T = TypeVar("T")
Asks = Generator[Request | tuple[Request, ...], Any, T]
"""What asks the card on its way to a `T`: pipelines, models and samplers."""
