"""A checkpoint in memory: three networks and the figures that the file states about them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from shared.tokens import Tokenizer
from worker.engine.devices import Device
from worker.engine.schedules import SigmaTable

if TYPE_CHECKING:  # diffusers and transformers take seconds, and only who builds a network needs them
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.modeling_clip import CLIPTextModel

KEPT_EMBEDDINGS: Final = 256  # chunks; 0.1 MB each for Stable Diffusion 1 in half precision


@dataclass(frozen=True, eq=False)
class Weights:
    """One resident checkpoint. Once it is loaded, its networks are called only by `answers`, on the engine's thread."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: Tokenizer
    sigmas: SigmaTable
    predicts_velocity: bool  # v-prediction; else the noise itself
    latent_scale: float  # what the VAE's latents are multiplied with to have about unit variance
    native_size: int  # pixels of a side
    latent_rgb: Tensor  # [5, 3]: a latent's four channels and 1 -> red, green, blue in -1..1, for previews
    device: Device
    embeddings: Embeddings = field(default_factory=lambda: Embeddings(KEPT_EMBEDDINGS))

    @property
    def dtype(self) -> torch.dtype:
        """The number format that the U-Net computes in."""
        return next(self.unet.parameters()).dtype

    @property
    def bytes(self) -> int:
        """What the networks take in memory."""
        networks = (self.unet, self.vae, self.text_encoder)
        return sum(weight.nbytes for network in networks for weight in network.state_dict().values())


class Embeddings:
    """The embeddings of the chunks that this checkpoint met last; they leave memory with it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    def get(self, chunk: tuple[int, ...]) -> Tensor | None:
        """Return the embedding [77, width] of `chunk`, or None where it is not kept."""
        if chunk in self._kept:
            self._kept.move_to_end(chunk)
        return self._kept.get(chunk)

    def put(self, chunk: tuple[int, ...], embedding: Tensor) -> None:
        """Keep `embedding`; the one that was asked for longest ago may go."""
        self._kept[chunk] = embedding
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
