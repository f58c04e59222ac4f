"""The inputs of a pipeline beside the parameters: loaded checkpoints and decoded pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.media.arrays import Mask, Pixels
from shared.params.controlnet import ControlUnit
from shared.params.ip_adapter import IPAdapterUnit
from worker.engine.adapters.control_nets import ControlNet
from worker.engine.adapters.ip_adapters import IPAdapter
from worker.engine.architectures.conditioning import Adapter
from worker.engine.architectures.weights import Weights
from worker.engine.loading.image_encoders import ImageEncoder
from worker.engine.upscaling.architectures import PixelNetwork


class ControlInput(NamedTuple):
    """A control net with its options, and the picture that it follows."""

    options: ControlUnit
    net: ControlNet
    picture: Pixels | None = None  # None: the one that the render starts from
    second: Pixels | None = None  # the same at the size of the second pass; None: that is made of `picture`


class IPAdapterInput(NamedTuple):
    """An IP-Adapter with its options, the image encoder that it reads, and its pictures."""

    options: IPAdapterUnit
    adapter: IPAdapter
    encoder: ImageEncoder
    pictures: tuple[Pixels, ...]


@dataclass(frozen=True, eq=False)
class Kit:
    """The checkpoints of each part of a render, and the pictures that it starts from; None if there is none."""

    weights: Weights
    refiner: Weights | None = None  # takes over on the way
    hires: Weights | None = None  # renders the second pass
    source: Pixels | None = None
    mask: Mask | None = None  # above 128: repainted
    upscaler: PixelNetwork | None = None  # enlarges the first pass's picture for the second
    face_restorer: PixelNetwork | None = None  # of the finished picture
    adapters: Mapping[str, Adapter] = field(default_factory=dict)  # that tags in prompts name, by their keys
    controls: tuple[ControlInput, ...] = ()
    ip_adapters: tuple[IPAdapterInput, ...] = ()

    def of_pass(self, *, is_second: bool) -> Weights:
        """Return the checkpoint of the first or the second pass, whose VAE decodes its latents."""
        return self.hires or self.weights if is_second else self.weights
