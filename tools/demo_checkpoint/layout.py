"""The demo models' architecture and the original single-file Stable Diffusion v1 layout they are stored in.

A checkpoint is three networks: a text encoder, a U-Net and a variational autoencoder (VAE). In memory they are the
plain modules of transformers and diffusers; on disk they carry the names of CompVis' `ldm`, in half precision, with the
original configuration in a `.yaml` of the same name. diffusers ships the way from those names to its own
(`convert_ldm_*`); this is the way back.

The layout fixes what the yaml cannot say: 32 GroupNorm groups (every width a multiple of 32) and text heads of 64.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from diffusers.loaders import single_file_utils
from diffusers.models import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

VOCABULARY = 49408  # CLIP's byte-pair tokens
POSITIONS = 77
START, END = 49406, 49407
METADATA = {"format": "pt", "title": "Stepfarm demo checkpoint", "license": "Apache-2.0"}


@dataclass(frozen=True)
class Shape:
    """The sizes of one checkpoint; the defaults are those of `scenes-v1`."""

    image_size: int = 128  # pixels, a side
    unet_width: int = 64
    unet_multiples: tuple[int, ...] = (1, 2, 3, 3)
    attention_resolutions: tuple[int, ...] = (4, 2, 1)  # in units of one latent cell: all levels but the coarsest
    unet_layers: int = 1
    unet_heads: int = 4
    vae_width: int = 32
    vae_multiples: tuple[int, ...] = (1, 2, 4, 6)  # three halvings: eight pixels to a latent cell
    vae_layers: int = 1
    text_width: int = 128
    text_layers: int = 3


@dataclass
class Checkpoint:
    """The three networks in memory, and the factor that brings latents to unit variance."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text: CLIPTextModel
    scale_factor: float


def original_config(shape: Shape, scale_factor: float) -> dict[str, Any]:
    """The configuration in the original form, as it stands in the `.yaml`."""
    side = shape.image_size // 2 ** (len(shape.vae_multiples) - 1)
    unet = {
        "image_size": side,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": shape.unet_width,
        "attention_resolutions": list(shape.attention_resolutions),
        "num_res_blocks": shape.unet_layers,
        "channel_mult": list(shape.unet_multiples),
        "num_heads": shape.unet_heads,
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "context_dim": shape.text_width,
        "use_checkpoint": False,
        "legacy": False,
    }
    autoencoder = {
        "double_z": True,
        "z_channels": 4,
        "resolution": shape.image_size,
        "in_channels": 3,
        "out_ch": 3,
        "ch": shape.vae_width,
        "ch_mult": list(shape.vae_multiples),
        "num_res_blocks": shape.vae_layers,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    params = {
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "timesteps": 1000,
        "parameterization": "eps",
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": side,
        "channels": 4,
        "conditioning_key": "crossattn",
        "scale_factor": scale_factor,
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet},
        "first_stage_config": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {"embed_dim": 4, "ddconfig": autoencoder, "lossconfig": {"target": "torch.nn.Identity"}},
        },
        "cond_stage_config": {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder"},
    }
    return {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}}


def build(shape: Shape, seed: int = 0, scale_factor: float = 1.0) -> Checkpoint:
    """A fresh checkpoint, its weights drawn from `seed`.

    Token embeddings start near zero: a word that training never shows stays harmless.
    """
    config = original_config(shape, scale_factor)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel.from_config(single_file_utils.create_unet_diffusers_config_from_ldm(config, {}))
        vae = AutoencoderKL.from_config(single_file_utils.create_vae_diffusers_config_from_ldm(config, {}))
        text = CLIPTextModel(_text_config(shape.text_width, shape.text_layers))
        torch.nn.init.normal_(text.get_input_embeddings().weight, std=1e-3)
    return Checkpoint(unet.eval(), vae.eval(), text.eval(), scale_factor)


def save(checkpoint: Checkpoint, shape: Shape, path: Path) -> None:
    """Write `path` (safetensors, half precision) and the `.yaml` beside it; each appears whole or not at all."""
    tensors = {name: value.detach().half().contiguous().cpu() for name, value in original_tensors(checkpoint).items()}
    text = yaml.safe_dump(original_config(shape, checkpoint.scale_factor), sort_keys=False, default_flow_style=None)
    partial = path.with_suffix(".partial")
    safetensors.torch.save_file(tensors, partial, METADATA)
    path.with_suffix(".yaml").write_text(text, encoding="utf-8")
    partial.chmod(0o644)  # safetensors writes for the owner only
    partial.replace(path)


def load(path: Path) -> tuple[Checkpoint, Shape]:
    """Read a file that `save` wrote, as float32; RuntimeError where a weight is missing, surplus or misshapen."""
    tensors = safetensors.torch.load_file(path)
    shape, scale_factor = shape_of(yaml.safe_load(path.with_suffix(".yaml").read_text(encoding="utf-8")), tensors)
    checkpoint = build(shape, scale_factor=scale_factor)
    checkpoint.unet.load_state_dict(single_file_utils.convert_ldm_unet_checkpoint(tensors, checkpoint.unet.config))
    checkpoint.vae.load_state_dict(single_file_utils.convert_ldm_vae_checkpoint(tensors, checkpoint.vae.config))
    words = single_file_utils.convert_ldm_clip_checkpoint(tensors)
    checkpoint.text.load_state_dict({name.removeprefix("text_model."): value for name, value in words.items()})
    return checkpoint, shape


def shape_of(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Shape, float]:
    """The sizes and the latent scale in an original configuration; the text encoder's are read from its weights."""
    params = config["model"]["params"]
    unet, autoencoder = params["unet_config"]["params"], params["first_stage_config"]["params"]["ddconfig"]
    layers = {name.split(".encoder.layers.")[1].split(".")[0] for name in tensors if ".encoder.layers." in name}
    shape = Shape(
        image_size=autoencoder["resolution"],
        unet_width=unet["model_channels"],
        unet_multiples=tuple(unet["channel_mult"]),
        attention_resolutions=tuple(unet["attention_resolutions"]),
        unet_layers=unet["num_res_blocks"],
        unet_heads=unet["num_heads"],
        vae_width=autoencoder["ch"],
        vae_multiples=tuple(autoencoder["ch_mult"]),
        vae_layers=autoencoder["num_res_blocks"],
        text_width=unet["context_dim"],
        text_layers=len(layers),
    )
    return shape, params["scale_factor"]


def original_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All weights under their names in the original layout."""
    prefix = "cond_stage_model.transformer.text_model."
    text = {prefix + key: value for key, value in checkpoint.text.state_dict().items()}
    return unet_tensors(checkpoint.unet) | vae_tensors(checkpoint.vae) | text


def unet_tensors(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The weights of a U-Net under their names in the original layout."""
    weights = unet.state_dict()
    with_attention = {int(key.split(".")[1]) for key in weights if re.match(r"up_blocks\.\d+\.attentions", key)}
    name = unet_names(unet.config.layers_per_block, with_attention)
    return {f"model.diffusion_model.{name(key)}": value for key, value in weights.items()}


def vae_tensors(vae: AutoencoderKL) -> dict[str, Tensor]:
    """The weights of a VAE under their names, and in their shapes, in the original layout."""
    name = _vae_names(len(vae.config.block_out_channels))
    return {f"first_stage_model.{name(key)}": _as_convolution(key, value) for key, value in vae.state_dict().items()}


def _text_config(width: int, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        projection_dim=width,
        max_position_embeddings=POSITIONS,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=END,
    )


_UNET_STEMS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_UNET_LEAVES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_LEAVES = {
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.attentions.0": "mid.attn_1",
    "mid_block.resnets.1": "mid.block_2",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def unet_names(layers: int, with_attention: Collection[int]) -> Callable[[str], str]:
    """A function from diffusers' U-Net names to the original ones; the levels `with_attention` are those of the way up.

    The original numbers all blocks of a side in one row: `layers` a level and a downsampler each on the way down;
    `layers + 1` a level on the way up, where an upsampler sits in the same block as the level's last one.
    """
    row = layers + 1

    def block(match: re.Match[str]) -> str:
        way, level, kind, index = match[1], int(match[2]), match[3], int(match[4])
        if kind == "downsamplers":
            return f"input_blocks.{level * row + row}.0.op"
        if kind == "upsamplers":
            return f"output_blocks.{level * row + layers}.{2 if level in with_attention else 1}.conv"
        part = 0 if kind == "resnets" else 1
        number = level * row + index
        return f"input_blocks.{1 + number}.{part}" if way == "down" else f"output_blocks.{number}.{part}"

    def name(key: str) -> str:
        key = re.sub(r"^(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)(\.conv(?=\.))?", block, key)
        key = _renamed(key, _UNET_STEMS)
        return key if ".transformer_blocks." in key else _renamed(key, _UNET_LEAVES)

    return name


def _vae_names(levels: int) -> Callable[[str], str]:
    """A function from diffusers' VAE names to the original ones, whose decoder counts its levels from the finest."""

    def name(key: str) -> str:
        key = re.sub(r"encoder\.down_blocks\.(\d+)\.", r"encoder.down.\1.", key)
        key = re.sub(r"decoder\.up_blocks\.(\d+)\.", lambda match: f"decoder.up.{levels - 1 - int(match[1])}.", key)
        return _renamed(_renamed(key, _VAE_LEAVES), {"resnets": "block"})

    return name


def _renamed(key: str, names: Mapping[str, str]) -> str:
    """`key` with every whole dotted part that `names` knows replaced."""
    for old, new in names.items():
        key = re.sub(rf"(^|\.){re.escape(old)}(?=\.)", rf"\g<1>{new}", key)
    return key


def _as_convolution(key: str, value: Tensor) -> Tensor:
    """The VAE's attention projections, 1x1 convolutions in the original: [out, in] to [out, in, 1, 1]."""
    projection = "attentions" in key and key.endswith("weight") and value.dim() == 2
    return value[:, :, None, None] if projection else value
