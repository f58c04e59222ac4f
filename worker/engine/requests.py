"""The six requests that a run may make of the card. A pipeline yields one, or a tuple, and is sent the answers.

Shapes are those of one picture: a request does not know about rows, batches or other pictures. Requests are immutable,
and so are their tensors: nothing is computed in place on `x`. A request that cannot be answered raises at its `yield`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor, nn

from shared.params.fields import Tiling
from shared.prompts.chunks import Text
from worker.engine.architectures.conditioning import Applied, Conditioning
from worker.engine.architectures.weights import Weights


@dataclass(frozen=True, eq=False)
class Term:
    """One conditioning of a guided call and its weight in the sum."""

    weight: float
    conditioning: Conditioning
    is_negative: bool = False  # of the negative prompt


@dataclass(frozen=True, eq=False)
class Embed:
    """A text in chunks -> its conditioning: a context [tokens, width], and the pooled vector if there is one.

    Layer `clip_skip` from the end is read by text encoders that follow it (1: the last), and by others their usual
    layer, as by all of them if it is None. A token with a weight other than 1 is scaled by it. With `keeps_mean` the
    chunk is then scaled to the mean that it had before. `adapters` change the text encoders.
    Virtual tokens have the vectors of the embeddings of `weights`.
    """

    weights: Weights
    text: Text
    clip_skip: int | None = None
    keeps_mean: bool = True
    adapters: tuple[Applied, ...] = ()


@dataclass(frozen=True, eq=False)
class Denoise:
    """A noisy latent -> the denoised one, float32: the weighted sum over the terms; weights sum to 1.

    With `also` the answer is a tuple: that sum, and one more for each of these other weights of the same terms.
    This is model call `call` of `calls` in its run, counted from 1.
    """

    weights: Weights
    x: Tensor  # [channels, h/cell, w/cell], float32
    sigma: float
    terms: tuple[Term, ...]
    call: int
    calls: int
    also: tuple[tuple[float, ...], ...] = ()
    is_second_pass: bool = False  # of hires fix

    @property
    def unet_rows(self) -> float:
        """How much its answer takes, in rows of the U-Net: a control net is the half of one."""
        return sum(1 + len(term.conditioning.controls) / 2 for term in self.terms)


@dataclass(frozen=True, eq=False)
class ToLatent:
    """Pixels [3, h, w] in -1..1 -> the latent that the decoder takes for them [channels, h/cell, w/cell]."""

    weights: Weights
    pixels: Tensor
    is_precise: bool = False  # in float32, whatever the precision of the VAE
    is_divisible: bool = False  # if memory runs out, the pipeline asks again for smaller parts


@dataclass(frozen=True, eq=False)
class ToPixels:
    """A latent [channels, h/cell, w/cell] -> pixels [3, h, w], float32, about -1..1."""

    weights: Weights
    latent: Tensor
    is_precise: bool = False  # in float32, whatever the precision of the VAE
    is_divisible: bool = False  # if memory runs out, the pipeline asks again for smaller parts


@dataclass(frozen=True, eq=False)
class Apply:
    """Pixels [3, h, w] -> the output of a separate network for them: an upscaler, a face restorer, an image encoder.

    They are in 0..1 unless the network reads them otherwise. An IP-Adapter reads the features of a picture instead
    [places, width].
    """

    network: nn.Module
    pixels: Tensor
    tiling: Tiling = "none"  # axes along which its convolutions wrap around to the other side
    is_divisible: bool = False  # if memory runs out, the pipeline asks again for smaller parts
    places: int | None = None  # at which it uses each of its weights; None: at each pixel
    answer_key: Hashable | None = None  # equal for requests of one network with the same answer, which share a call
    options: Mapping[str, float] = field(default_factory=dict)  # that the network takes by name beside the pixels


@dataclass(frozen=True, eq=False)
class Work:
    """A function without arguments -> its result, called off the engine's thread: anything slow on the host."""

    function: Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Read(Work):
    """Work that reads the card: it waits for all earlier requests of its run, and for no later ones.

    It brings its result to the host by `transfers.fetched`.
    """


Request = Embed | Denoise | ToLatent | ToPixels | Apply | Work

T = TypeVar("T")
Asks = Generator[Request | tuple[Request, ...], Any, T]
"""A generator that yields requests and returns a `T`: a pipeline, a model or a sampler."""
