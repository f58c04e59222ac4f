"""VAEs, alone or inside a checkpoint: their configuration, by the shapes of their weights, and diffusers' names.

Imports diffusers, which takes seconds: imported when a file is read, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from diffusers.loaders import single_file_utils as original
from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Part
from worker.engine.architectures.reading.names import renamed
from worker.engine.files.config_bounds import Config, moderate

PREFIX: Final = "first_stage_model."
_PARTS: Final = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
_TRAINING: Final = ("loss", "model_ema", "discriminator")  # left by training
_LEVELS: Final = 4
_MOST_BLOCKS: Final = 8  # of a level
_OLD_ATTENTION: Final = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def inside(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the VAE in a checkpoint in the original layout, as they are named there."""
    left = tuple(f"{PREFIX}{name}." for name in _TRAINING)
    return {name: one for name, one in weights.items() if name.startswith(PREFIX) and not name.startswith(left)}


def alone(weights: Mapping[str, Tensor]) -> Part:
    """Return the VAE in a file of its own, in the original layout or diffusers'. Raises ModelFileError."""
    named = {key.removeprefix(PREFIX): value for key, value in weights.items()}
    return _part({key: value for key, value in named.items() if key.startswith(_PARTS)})


def part(weights: Mapping[str, Tensor]) -> Part:
    """Return the VAE of `inside`. Raises ModelFileError."""
    return _part({key.removeprefix(PREFIX): value for key, value in weights.items()})


def described(weights: Mapping[str, Tensor], config: Config) -> Part:
    """Return the VAE of `inside` with a configuration that is given. Raises ModelFileError."""
    return Part(config, renamed(original.convert_ldm_vae_checkpoint, weights, config))


def of_folder(weights: Mapping[str, Tensor], config: Config) -> Part:
    """Return a folder's VAE; the former names of its attention are replaced by today's."""
    return Part(config, _new_attention(weights))


def _part(weights: Mapping[str, Tensor]) -> Part:
    if any(key.startswith("encoder.down_blocks.") for key in weights):
        return Part(_config(weights, "down_blocks", "resnets"), _new_attention(weights))
    return described(weights, _config(weights, "down", "block"))


def _new_attention(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    current: dict[str, Tensor] = {}
    for key, value in weights.items():
        for old, new in _OLD_ATTENTION.items() if ".attentions." in key else ():
            key = key.replace(old, new)  # noqa: PLW2901 - at most one of them matches
        current[key] = value
    return current


def _config(weights: Mapping[str, Tensor], levels: str, blocks: str) -> Config:
    """Return the configuration that fits the weights; norms have 32 groups in every VAE of Stable Diffusion."""
    first = f"encoder.{levels}.0.{blocks}."
    try:
        widths = [weights[f"encoder.{levels}.{level}.{blocks}.0.conv2.weight"].shape[0] for level in range(_LEVELS)]
        colours, latent = weights["encoder.conv_in.weight"].shape[1], weights["decoder.conv_in.weight"].shape[1]
    except (LookupError, ValueError) as error:
        raise ModelFileError(f"its VAE is not one of Stable Diffusion: {error} is missing or misshapen") from error
    depth = sum(f"{first}{block}.conv2.weight" in weights for block in range(_MOST_BLOCKS))
    return moderate(
        {
            "in_channels": colours,
            "out_channels": colours,
            "latent_channels": latent,
            "down_block_types": ["DownEncoderBlock2D"] * _LEVELS,
            "up_block_types": ["UpDecoderBlock2D"] * _LEVELS,
            "block_out_channels": widths,
            "layers_per_block": depth,
            "norm_num_groups": 32,
        }
    )
