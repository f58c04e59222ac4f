"""Stable Diffusion 1 and XL in full size, whose weights have shapes and no values: on the meta device, or on the
pretended card.

    with pretended_card.installed(inner="meta", capacity=2**50):
        weights = full_size.weights("sdxl", torch.float16)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

from shared.prompts.tokenizer import Tokenizer
from tests.support import original_layout
from tests.support.card_kernels import Card
from tools.demo_checkpoint import layout
from worker.engine import devices
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.registry import ARCHITECTURES
from worker.engine.architectures.weights import Weights
from worker.engine.loading.networks import fill
from worker.engine.sigma_table import SigmaTable


class Size(NamedTuple):
    """The configurations of one architecture's networks, as its folder of diffusers states them."""

    native_size: int  # pixels of a side
    latent_scale: float
    unet: Mapping[str, Any]
    texts: Mapping[str, Mapping[str, Any]]  # by their names in diffusers
    prefixes: Mapping[str, str]  # of the same in a single file


_CLIP_L: Final = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu", "projection_dim": 768,
}  # fmt: skip
_OPEN_CLIP_G: Final = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "hidden_act": "gelu", "projection_dim": 1280,
}  # fmt: skip
_SD1_UNET: Final = {
    "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8,  # their number
    "cross_attention_dim": 768,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}  # fmt: skip
_SDXL_UNET: Final = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "attention_head_dim": (5, 10, 20),  # their number
    "cross_attention_dim": 2048, "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
_VAE: Final = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
}  # fmt: skip
_SDXL_PREFIXES: Final = {
    "text_encoder": "conditioner.embedders.0.transformer.", "text_encoder_2": "conditioner.embedders.1.model.",
}  # fmt: skip
SIZES: Final[Mapping[str, Size]] = {
    "sd1": Size(512, 0.18215, _SD1_UNET, {"text_encoder": _CLIP_L}, {"text_encoder": "cond_stage_model.transformer."}),
    "sdxl": Size(1024, 0.13025, _SDXL_UNET, {"text_encoder": _CLIP_L, "text_encoder_2": _OPEN_CLIP_G}, _SDXL_PREFIXES),
}


def networks(name: str) -> dict[str, nn.Module]:
    """Return the networks of an architecture by their names in diffusers, on the meta device."""
    size = SIZES[name]
    with torch.device("meta"):
        texts = {place: _text_encoder(config, place) for place, config in size.texts.items()}
        return {"unet": UNet2DConditionModel(**size.unet), "vae": AutoencoderKL(**_VAE), **texts}


def original_tensors(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the weights of an architecture as a single file holds them in `dtype`, by their original names."""
    built = networks(name)
    found = layout.unet_tensors(built["unet"]) | layout.vae_tensors(built["vae"])
    with torch.device("meta"):
        for place, prefix in SIZES[name].prefixes.items():
            to_original = original_layout.open_clip if prefix.endswith(".model.") else original_layout.clip
            found |= to_original(prefix, built[place].state_dict())
        return {key: weight.to(dtype) if weight.is_floating_point() else weight for key, weight in found.items()}


def weights(name: str, dtype: torch.dtype) -> Weights:
    """Return an architecture on the pretended card, U-Net and text encoders in `dtype`, the VAE in its own format."""
    card, size, architecture, built = devices.device("cuda:0"), SIZES[name], ARCHITECTURES[name], networks(name)
    for place, network in built.items():
        form = devices.decoder_dtype(card, dtype) if place == "vae" else dtype
        fill(network, {key: _on_card(weight, form) for key, weight in network.state_dict().items()})
    text_encoders = architecture.text_encoders(built)
    for encoder in text_encoders:
        encoder.number_positions(card.torch)
    return Weights(
        architecture=architecture,
        unet=cast("UNet2DConditionModel", built["unet"]),
        vae=cast("AutoencoderKL", built["vae"]),
        text_encoders=text_encoders,
        tokenizer=Tokenizer(),
        sigmas=SigmaTable.scaled_linear(),
        prediction=Prediction.NOISE,
        latent_scale=size.latent_scale,
        native_size=size.native_size,
        latent_rgb=torch.tensor(architecture.usual_rgb),
        sample=torch.zeros(architecture.latent.channels, 8, 8),
        device=card,
    )


def _text_encoder(config: Mapping[str, Any], place: str) -> nn.Module:
    kind = CLIPTextModelWithProjection if place == "text_encoder_2" else CLIPTextModel
    return kind(CLIPTextConfig(**config, vocab_size=49408, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407))


def _on_card(weight: Tensor, dtype: torch.dtype) -> Card:
    order = torch.channels_last if weight.dim() == 4 else torch.contiguous_format
    return Card(torch.empty(weight.shape, dtype=dtype, device="meta", memory_format=order))
