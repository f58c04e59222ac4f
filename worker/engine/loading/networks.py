"""Networks from parts: built without weights, filled strictly. A missing weight is an error, never a random number.

Imports diffusers and transformers, which takes seconds: imported when a checkpoint is read, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from shared.errors import ModelFileError
from shared.prompts.tokenizer import BOS, EOS, TOKENS
from worker.engine.architectures.base import Architecture
from worker.engine.architectures.parts import Part, Parts
from worker.engine.files.config_bounds import UNFIT

_LATENT: Final = Architecture.latent
VAE_LEVELS: Final = 4  # each but the first halves a side


def build(parts: Parts) -> dict[str, nn.Module]:
    """Return the networks that `parts` describe by their names, on the meta device until they are filled.

    Raises ModelFileError if no network fits the description, or if a weight is missing, left over or misshapen.
    """
    words = {**parts.networks["text_encoder"].config, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": EOS}
    try:
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(parts.networks["unet"].config)
            text_encoder = CLIPTextModel(CLIPTextConfig.from_dict(words))
    except UNFIT as error:
        raise ModelFileError(f"its configuration describes no network ({error})") from error
    _require_fit(unet, text_encoder)
    _require("U-Net", unet, parts.networks["unet"])
    _require("text encoder", text_encoder, parts.networks["text_encoder"])
    vae = {"vae": build_vae(parts.networks["vae"])} if "vae" in parts.networks else {}
    return {"unet": unet, "text_encoder": text_encoder, **vae}


def build_vae(part: Part) -> AutoencoderKL:
    """Return the VAE that `part` describes, on the meta device until it is filled. Raises ModelFileError."""
    try:
        with torch.device("meta"):
            vae: AutoencoderKL = AutoencoderKL.from_config(part.config)
    except UNFIT as error:
        raise ModelFileError(f"its configuration describes no network ({error})") from error
    sizes = vae.config["latent_channels"], len(vae.config["block_out_channels"]), vae.config["out_channels"]
    if sizes != (_LATENT.channels, VAE_LEVELS, 3):
        raise ModelFileError("its VAE does not make pictures of the U-Net's latents: 4 channels, 8 pixels a cell")
    _require("VAE", vae, part)
    return vae


def build_decoder(part: Part) -> DecoderTiny:
    """Return the tiny decoder that `part` describes, on the meta device until it is filled. Raises ModelFileError."""
    with torch.device("meta"):
        decoder = DecoderTiny(**part.config)
    _require("decoder", decoder, part)
    return decoder


def fill(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Assign `weights` to `network` as they are; it is then ready to be called, not to be trained."""
    network.load_state_dict(dict(weights), strict=True, assign=True)
    network.eval().requires_grad_(requires_grad=False)


def _require_fit(unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
    """Raise ModelFileError if U-Net and text encoder do not fit together, or are not those of Stable Diffusion 1."""
    words = text_encoder.config
    if words.vocab_size <= EOS or words.max_position_embeddings < TOKENS:
        size = f"{words.vocab_size} words and {words.max_position_embeddings} positions"
        raise ModelFileError(f"its text encoder has {size}; CLIP's {EOS + 1} and {TOKENS} are needed")
    if unet.config["cross_attention_dim"] != words.hidden_size:
        widths = f"{words.hidden_size} wide, and its U-Net reads {unet.config['cross_attention_dim']}"
        raise ModelFileError(f"its text encoder is {widths}")
    if unet.config["out_channels"] != _LATENT.channels:
        raise ModelFileError(
            f"its U-Net makes latents of {unet.config['out_channels']} channels; {_LATENT.channels} are right"
        )


def _require(what: str, network: nn.Module, part: Part) -> None:
    expected, weights = network.state_dict(), part.weights
    if missing := sorted(expected.keys() - weights.keys()):
        raise ModelFileError(f"{len(missing)} of the {what}'s {len(expected)} weights are missing, first {missing[0]}")
    if surplus := sorted(weights.keys() - expected.keys()):
        raise ModelFileError(f"the {what} has {len(surplus)} weights too many, first {surplus[0]}")
    for name, weight in expected.items():
        if weights[name].shape != weight.shape:
            shapes = f"{tuple(weights[name].shape)}, not {tuple(weight.shape)}"
            raise ModelFileError(f"the {what}'s {name} has the shape {shapes}: its .yaml is missing or another's")
