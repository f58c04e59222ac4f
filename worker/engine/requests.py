"""What a run may ask of the card: six requests. A pipeline yields one, or a tuple of them, and is sent the answers.

Shapes are those of one picture: no request knows of rows, batches or other pictures. Requests are immutable, and so are
the tensors in them: a computation from `x` makes a new one. A request that cannot be answered raises at its `yield`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from shared.prompts.chunks import Text
from worker.engine.weights import Weights


@dataclass(frozen=True, eq=False)
class Term:
    """One conditioning of a guided call and its weight in the sum."""

    weight: float
    context: Tensor  # [tokens, width]


@dataclass(frozen=True, eq=False)
class Embed:
    """A text in chunks -> its context [tokens, width], 77 tokens for each chunk.

    Layer `clip_skip` from the end is read; 1: the last. What weighs more or less than 1 is scaled by that, and then
    the chunk to the mean that it had before, if it `keeps_mean`.
    """

    weights: Weights
    text: Text
    clip_skip: int = 1
    keeps_mean: bool = True


@dataclass(frozen=True, eq=False)
class Denoise:
    """A noisy latent -> the denoised one [4, h/8, w/8], float32: the weighted sum over the terms; weights sum to 1.

    With `also` the answer is a tuple: that sum, then one for each of these further weightings of the same terms.
    This is model call `call` of `calls` of its run, from 1.
    """

    weights: Weights
    x: Tensor  # [4, h/8, w/8], float32
    sigma: float
    terms: tuple[Term, ...]
    call: int
    calls: int
    extra: Tensor | None = None  # [5, h/8, w/8]: mask and masked latent, where the checkpoint takes them
    also: tuple[tuple[float, ...], ...] = ()
    is_second_pass: bool = False  # of a render of two


@dataclass(frozen=True, eq=False)
class ToLatent:
    """Pixels [3, h, w] in -1..1 -> the latent that the decoder takes for them [4, h/8, w/8]."""

    weights: Weights
    pixels: Tensor
    is_precise: bool = False  # in float32, whatever the VAE is kept in
    is_divisible: bool = False  # a pipeline without an answer for lack of memory asks for smaller parts


@dataclass(frozen=True, eq=False)
class ToPixels:
    """A latent [4, h/8, w/8] -> pixels [3, h, w], float32, about -1..1."""

    weights: Weights
    latent: Tensor
    is_precise: bool = False  # in float32, whatever the VAE is kept in
    is_divisible: bool = False  # a pipeline without an answer for lack of memory asks for smaller parts


@dataclass(frozen=True, eq=False)
class Apply:
    """Pixels [3, h, w] in 0..1 -> pixels from a separate network, such as an upscaler or a face restorer."""

    network: nn.Module
    pixels: Tensor


@dataclass(frozen=True, eq=False)
class Work:
    """A function of no arguments -> what it returns, called off the engine's thread: anything slow on the host."""

    function: Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Read(Work):
    """Work that reads the card: what was asked before it is done by then, and what is asked later it does not wait for.

    It brings what it returns to the host by `reads.fetched`.
    """


Request = Embed | Denoise | ToLatent | ToPixels | Apply | Work

T = TypeVar("T")
Asks = Generator[Request | tuple[Request, ...], Any, T]
"""What asks the card on its way to a `T`: pipelines, models and samplers."""
