"""A checkpoint in memory: its networks, and the facts that its file states about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from shared.errors import ModelFileError
from shared.params.fields import Tiling
from shared.prompts.learned_words import NO_WORDS, Words, word_of
from shared.prompts.tokenizer import Tokenizer
from worker.engine.architectures.base import Architecture, LatentSpace, TextEncoder
from worker.engine.architectures.embeddings import Embedding
from worker.engine.architectures.prediction import Prediction
from worker.engine.devices import Device
from worker.engine.sigma_table import SigmaTable
from worker.engine.tensor_cache import TensorCache

if TYPE_CHECKING:  # diffusers takes seconds to import, and only building a network needs it
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

CACHED_MASKS: Final = 64  # sets of lengths of contexts; some KB each


@dataclass(frozen=True, eq=False)
class Weights:
    """One resident checkpoint. After loading, only `answers` calls its networks, on the engine's thread.

    A copy with another VAE, table or tiling, or with embeddings, has the same networks: requests of both share calls.
    """

    architecture: Architecture
    unet: UNet2DConditionModel
    vae: AutoencoderKL | None  # None: the file has no VAE, so it needs one from another file
    text_encoders: tuple[TextEncoder, ...]
    tokenizer: Tokenizer
    sigmas: SigmaTable
    prediction: Prediction
    latent_scale: float  # factor that gives the VAE's latents about unit variance
    native_size: int  # pixels of a side
    latent_rgb: Tensor  # [channels + 1, 3]: a latent's channels and 1 -> red, green, blue in -1..1, for previews
    sample: Tensor  # [channels, 8, 8]: the latent of `previews.known_picture`; shows which tiny decoder reads these
    device: Device
    masks: TensorCache[Tensor] = field(default_factory=lambda: TensorCache(CACHED_MASKS))
    """Which tokens of contexts are real, by their lengths."""
    tiling: Tiling = "none"  # axes along which convolutions wrap around to the other side
    embeddings: tuple[Embedding, ...] = ()  # for its text encoders, of words that the prompts at hand may mention
    words: Words = NO_WORDS  # which these embeddings teach

    def with_vae(self, vae: AutoencoderKL) -> Weights:
        """Return these weights with another VAE of the same latents."""
        return replace(self, vae=vae)

    def tiled(self, tiling: Tiling) -> Weights:
        """Return these weights for pictures whose edges continue at the other side."""
        return replace(self, tiling=tiling)

    def taught(self, embeddings: Mapping[str, Embedding]) -> Weights:
        """Return these weights with the words of embeddings, by the names of their files.

        One for other text encoders is left out: its word stays plain text.
        """
        if not embeddings:
            return self
        fitting = {name: one for name, one in embeddings.items() if one.fits(self.text_encoders)}
        words = self.tokenizer.learn(tuple(one.word(word_of(name)) for name, one in fitting.items()))
        return replace(self, embeddings=tuple(fitting.values()), words=words)

    @property
    def latent(self) -> LatentSpace:
        """The form of its latents."""
        return self.architecture.latent

    @property
    def takes_mask(self) -> bool:
        """Whether the U-Net was trained to inpaint: it sees a mask and the masked picture's latent too."""
        return bool(self.unet.config["in_channels"] == self.latent.channels + self.latent.mask_channels)

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
        every = (self.unet, self.vae, *(encoder.network for encoder in self.text_encoders))
        networks = [network for network in every if network is not None]
        return {id(network): network_bytes(network) for network in networks}

    @property
    def bytes(self) -> int:
        """The size of the networks in memory, counted weight by weight."""
        return sum(self.module_bytes().values())


def network_bytes(network: nn.Module) -> int:
    """Return the bytes of a network's weights."""
    return sum(weight.nbytes for weight in network.parameters())
