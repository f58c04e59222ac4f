"""What an architecture is: how checkpoints of a kind are read, embedded, denoised and decoded.

Nothing outside of this package knows a width, a channel count or a key prefix.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

import torch
from torch import Tensor, nn

from shared.models.architectures import ARCHITECTURES as FACTS
from shared.params.render import RenderParams
from shared.prompts.chunks import Chunk
from shared.prompts.tokenizer import BOS, EOS, TOKENS
from worker.engine.architectures.conditioning import Conditioning, Residuals, Stacked
from worker.engine.tensor_cache import TensorCache

if TYPE_CHECKING:  # diffusers takes seconds to import
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

CACHED_CHUNKS: Final = 256  # of a text encoder; 0.1 MB each for Stable Diffusion 1 in half precision


LatentColours = tuple[tuple[float, float, float], ...]
"""Red, green and blue in -1..1 by each of a latent's channels, and last the colour of a latent of zeros."""


class LatentSpace(NamedTuple):
    """The form of an architecture's latents [channels, h/cell, w/cell]."""

    channels: int
    cell: int  # pixels of a side

    @property
    def mask_channels(self) -> int:
        """The channels that an inpainting checkpoint sees beside a latent: a mask, and the masked picture's latent."""
        return 1 + self.channels


class Encoded(NamedTuple):
    """A chunk as a text encoder reads it."""

    layer: Tensor  # [tokens, width]
    pooled: Tensor | None  # [width of the projection]

    def each(self, change: Callable[[Tensor], Tensor]) -> Encoded:
        """Return the same with `change` made to both tensors."""
        return Encoded(change(self.layer), None if self.pooled is None else change(self.pooled))


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """One text encoder of a checkpoint, and which of its layers is read."""

    name: str  # diffusers' name of its network
    network: nn.Module
    filling: int  # token that fills a chunk behind its EOS
    layer: int = 1  # from the end; 1: the last
    follows_clip_skip: bool = False
    is_normed: bool = False  # whether the layer passes the final layer norm
    is_pooled: bool = False  # whether the architecture reads this encoder's pooled vector too
    cache: TensorCache[Encoded] = field(default_factory=lambda: TensorCache(CACHED_CHUNKS))

    def tokens(self, chunk: Chunk) -> tuple[int, ...]:
        """Return a chunk between BOS and EOS, filled to its whole length."""
        filling = (self.filling for _ in range(TOKENS - 2 - len(chunk.tokens)))
        return (BOS, *chunk.tokens, EOS, *filling)

    def layer_of(self, clip_skip: int | None) -> int:
        """Return which layer from the end is read; None: the usual one."""
        return clip_skip if clip_skip is not None and self.follows_clip_skip else self.layer

    @torch.inference_mode()
    def encode(self, tokens: Tensor, layers: Sequence[int]) -> list[Encoded]:
        """Return each row of `tokens` [rows, tokens] as this encoder reads it: by its own layer from the end."""
        output = self.network(input_ids=tokens, output_hidden_states=True)
        read = torch.stack([output.hidden_states[-layer][place] for place, layer in enumerate(layers)])
        if self.is_normed:
            read = _text_model(self.network).get_submodule("final_layer_norm")(read)
        pooled = output.text_embeds.unbind() if self.is_pooled else [None] * len(layers)
        return [Encoded(*row) for row in zip(read.unbind(), pooled, strict=True)]

    @property
    def vocabulary(self) -> nn.Module:
        """The table of the vectors of CLIP's tokens [tokens, width]."""
        return _text_model(self.network).get_submodule("embeddings.token_embedding")

    @property
    def width(self) -> int:
        """The length of a token's vector."""
        return int(self.vocabulary.get_parameter("weight").shape[1])

    @property
    def positions(self) -> Tensor:
        """The table of positions, which no checkpoint stores."""
        return _text_model(self.network).get_buffer("embeddings.position_ids")

    def number_positions(self, on: torch.device) -> None:
        """Fill the table of positions on a device."""
        embeddings = _text_model(self.network).get_submodule("embeddings")
        embeddings.position_ids = torch.arange(self.positions.shape[-1], device=on)[None]

    @property
    def layers(self) -> int:
        """How many layers the encoder has."""
        return len(_text_model(self.network).get_submodule("encoder.layers"))  # type: ignore[arg-type]  # a ModuleList


class Architecture(ABC):
    """One architecture. Its subclasses hold all that differs from Stable Diffusion 1."""

    name: ClassVar[str]  # in catalogue, API and infotext
    latent: ClassVar[LatentSpace] = LatentSpace(channels=4, cell=8)
    chunk: ClassVar[int] = TOKENS  # tokens that a text encoder reads at once
    text_widths: ClassVar[Mapping[str, int]]  # of usual checkpoints, by diffusers' names of their text encoders
    size_figures: ClassVar[int] = 0  # that a row brings about the picture's size
    zeroes_empty_negative: ClassVar[bool] = False  # an empty negative prompt is zeros, and not an empty text
    usual_rgb: ClassVar[LatentColours] = (
        (0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473),
        (0.0, 0.0, 0.0),
    )  # fmt: skip
    """The colours of latents, as `previews.latent_rgb` finds them, for a checkpoint without a VAE."""
    # Operations, as multiples of those of Stable Diffusion 1: of a latent cell at the native size, and of a chunk.
    unet_cost: ClassVar[float] = 1.0
    text_cost: ClassVar[float] = 1.0

    @property
    def label(self) -> str:
        """What people call it."""
        return FACTS[self.name].label

    @property
    def starts_from_noise(self) -> bool:
        """Whether its checkpoints render a picture by themselves."""
        return FACTS[self.name].starts_from_noise

    def text_encoders(self, networks: Mapping[str, nn.Module]) -> tuple[TextEncoder, ...]:
        """Return the text encoders, whose layers are joined in width in this order."""
        raise NotImplementedError

    def clip_skip(self, params: RenderParams) -> int | None:
        """Return which layer from the end text encoders that follow clip skip read; None: the usual one."""
        del params
        return None

    def sizes(self, params: RenderParams, *, is_negative: bool) -> tuple[float, ...]:
        """Return the `size_figures` of a row of the pass of `params`."""
        del params, is_negative
        return ()

    def blank(self, unet: UNet2DConditionModel) -> Conditioning:
        """Return a conditioning of zeros for `unet`, to warm it up and to measure it."""
        config, zeros, sizes = (
            unet.config,
            partial(torch.zeros, dtype=unet.dtype, device=unet.device),
            self.size_figures,
        )
        pooled = None
        if sizes:
            pooled = zeros(config["projection_class_embeddings_input_dim"] - sizes * config["addition_time_embed_dim"])
        return Conditioning(zeros(self.chunk, config["cross_attention_dim"]), self.chunk, pooled, (0.0,) * sizes)

    def predict(
        self,
        unet: UNet2DConditionModel,
        inputs: Tensor,
        timesteps: Tensor,
        rows: Stacked,
        residuals: Residuals | None = None,
    ) -> Tensor:
        """Return the output of the U-Net for `inputs` [rows, channels, h, w] at `timesteps` [rows]."""
        added = None if rows.pooled is None else {"text_embeds": rows.pooled, "time_ids": rows.sizes}
        output: Tensor = unet(
            inputs,
            timesteps,
            rows.context,
            encoder_attention_mask=rows.mask,
            added_cond_kwargs=added,
            down_block_additional_residuals=residuals and residuals.down,
            mid_block_additional_residual=residuals and residuals.middle,
            return_dict=False,
        )[0]
        return output


def _text_model(network: nn.Module) -> nn.Module:
    """Return the encoder inside of one with a projection, else the network itself."""
    inner = getattr(network, "text_model", network)
    return inner if isinstance(inner, nn.Module) else network
