"""A checkpoint in memory: three networks and the figures that the file states about them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from shared.errors import ModelFileError
from shared.params.fields import Tiling
from shared.prompts.tokenizer import Tokenizer
from worker.engine.devices import Device
from worker.engine.latent_space import CHANNELS, MASK_CHANNELS
from worker.engine.sigma_table import SigmaTable

if TYPE_CHECKING:  # diffusers and transformers take seconds, and only who builds a network needs them
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.modeling_clip import CLIPTextModel

KEPT_EMBEDDINGS: Final = 256  # chunks; 0.1 MB each for Stable Diffusion 1 in half precision
KEPT_MASKS: Final = 64  # for contexts of so many sets of lengths; some KB each


@dataclass(frozen=True, eq=False)
class Weights:
    """One resident checkpoint. Once it is loaded, its networks are called only by `answers`, on the engine's thread.

    A copy with another VAE, table or tiling is a view of the same networks: requests of both share calls.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL | None  # None: the file has none inside, and another one is needed with it
    text_encoder: CLIPTextModel
    tokenizer: Tokenizer
    sigmas: SigmaTable
    predicts_velocity: bool  # v-prediction; else the noise itself
    latent_scale: float  # what the VAE's latents are multiplied with to have about unit variance
    native_size: int  # pixels of a side
    latent_rgb: Tensor  # [5, 3]: a latent's four channels and 1 -> red, green, blue in -1..1, for previews
    sample: Tensor  # [4, 8, 8]: the latent of `previews.known_picture`; tells which tiny decoder reads these latents
    device: Device
    embeddings: Kept = field(default_factory=lambda: Kept(KEPT_EMBEDDINGS))
    masks: Kept = field(default_factory=lambda: Kept(KEPT_MASKS))  # which tokens of contexts are real
    tiling: Tiling = "none"  # edges over which the networks' convolutions go on at the other side

    def with_vae(self, vae: AutoencoderKL) -> Weights:
        """Return these weights with another VAE of the same latents."""
        return replace(self, vae=vae)

    def tiled(self, tiling: Tiling) -> Weights:
        """Return these weights for pictures whose edges continue on the other side."""
        return replace(self, tiling=tiling)

    @property
    def takes_mask(self) -> bool:
        """Whether the U-Net was trained to inpaint: it sees a mask and the masked picture's latent too."""
        return bool(self.unet.config["in_channels"] == CHANNELS + MASK_CHANNELS)

    @property
    def dtype(self) -> torch.dtype:
        """The number format that the U-Net computes in."""
        return next(self.unet.parameters()).dtype

    @property
    def has_precise_vae(self) -> bool:
        """Whether the VAE computes in float32 as it is."""
        return next(self.require_vae().parameters()).dtype == torch.float32

    def require_vae(self) -> AutoencoderKL:
        """Return the VAE. Raises ModelFileError if there is none."""
        if self.vae is None:
            raise ModelFileError("the checkpoint has no VAE inside: lay one beside it, or name one")
        return self.vae

    def module_bytes(self) -> dict[int, int]:
        """Return the size of each network; those that weights share have one key."""
        networks = [network for network in (self.unet, self.vae, self.text_encoder) if network is not None]
        return {id(network): sum(one.nbytes for one in network.parameters()) for network in networks}

    @property
    def bytes(self) -> int:
        """What the networks take in memory, counted weight by weight."""
        return sum(self.module_bytes().values())


class Kept:
    """Tensors that calls of this checkpoint need again, the last used of them; they leave memory with it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, of: Hashable) -> Tensor | None:
        """Return the tensor of `of` as it was put, or None where it is not kept."""
        if of in self._kept:
            self._kept.move_to_end(of)
        return self._kept.get(of)

    def put(self, of: Hashable, tensor: Tensor) -> None:
        """Keep a copy of `tensor`, which may be a view of a whole batch; the one asked for longest ago may go."""
        self._kept[of] = tensor.clone()
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
