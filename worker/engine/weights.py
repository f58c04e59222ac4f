"""A checkpoint in memory: three networks, and the facts that its file states about them."""

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

if TYPE_CHECKING:  # diffusers and transformers take seconds to import, and only building a network needs them
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.modeling_clip import CLIPTextModel

CACHED_EMBEDDINGS: Final = 256  # chunks; 0.1 MB each for Stable Diffusion 1 in half precision
CACHED_MASKS: Final = 64  # sets of lengths of contexts; some KB each


@dataclass(frozen=True, eq=False)
class Weights:
    """One resident checkpoint. After loading, only `answers` calls its networks, on the engine's thread.

    A copy with another VAE, table or tiling has the same networks: requests of both share calls.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL | None  # None: the file has no VAE, so it needs one from another file
    text_encoder: CLIPTextModel
    tokenizer: Tokenizer
    sigmas: SigmaTable
    predicts_velocity: bool  # v-prediction; else the noise itself
    latent_scale: float  # factor that gives the VAE's latents about unit variance
    native_size: int  # pixels of a side
    latent_rgb: Tensor  # [5, 3]: a latent's four channels and 1 -> red, green, blue in -1..1, for previews
    sample: Tensor  # [4, 8, 8]: the latent of `previews.known_picture`; shows which tiny decoder reads these latents
    device: Device
    embeddings: TensorCache = field(default_factory=lambda: TensorCache(CACHED_EMBEDDINGS))
    masks: TensorCache = field(default_factory=lambda: TensorCache(CACHED_MASKS))  # which tokens of contexts are real
    tiling: Tiling = "none"  # axes along which convolutions wrap around to the other side

    def with_vae(self, vae: AutoencoderKL) -> Weights:
        """Return these weights with another VAE of the same latents."""
        return replace(self, vae=vae)

    def tiled(self, tiling: Tiling) -> Weights:
        """Return these weights for pictures whose edges continue at the other side."""
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
        """Whether the VAE is in float32."""
        return next(self.require_vae().parameters()).dtype == torch.float32

    def require_vae(self) -> AutoencoderKL:
        """Return the VAE. Raises ModelFileError if there is none."""
        if self.vae is None:
            raise ModelFileError("the checkpoint has no VAE inside: put one beside it, or name one")
        return self.vae

    def module_bytes(self) -> dict[int, int]:
        """Return the size of each network, by its id: weights that share a network have a key in common."""
        networks = [network for network in (self.unet, self.vae, self.text_encoder) if network is not None]
        return {id(network): sum(one.nbytes for one in network.parameters()) for network in networks}

    @property
    def bytes(self) -> int:
        """The size of the networks in memory, counted weight by weight."""
        return sum(self.module_bytes().values())


class TensorCache:
    """Tensors that later calls of the same checkpoint use again. The least recently used leave first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._tensors: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable) -> Tensor | None:
        """Return the tensor of `key`, or None if it is not cached."""
        if key in self._tensors:
            self._tensors.move_to_end(key)
        return self._tensors.get(key)

    def put(self, key: Hashable, tensor: Tensor) -> None:
        """Cache a copy of `tensor`, which may be a view of a whole batch."""
        self._tensors[key] = tensor.clone()
        if len(self._tensors) > self._size:
            self._tensors.popitem(last=False)
