"""VAEs in files of their own, as people put them beside checkpoints: under the original names, or diffusers'.

Such a file has no configuration: it follows from the shapes of the weights. Imports diffusers, which takes seconds:
imported when a file is read, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from diffusers.loaders import single_file_utils as original
from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Part
from worker.engine.files.config_bounds import Config, moderate
from worker.engine.loading.layouts import CHECKPOINT_PREFIXES, VAE_PREFIX, new_attention, renamed

_PARTS: Final = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")  # other weights are left by training
_OWN: Final = tuple(f"{half}.{part}" for half in ("encoder", "decoder") for part in ("conv_in.", "down", "up", "mid"))
"""Names that no other network with an encoder and a decoder has."""
_LEVELS: Final = 4
_MOST_BLOCKS: Final = 8  # of a level


def holds_one(weights: Mapping[str, Tensor]) -> bool:
    """Return whether these are the weights of a VAE alone, or of one with leftovers of training."""
    is_whole = any(key.startswith(CHECKPOINT_PREFIXES) for key in weights)
    return not is_whole and any(key.removeprefix(VAE_PREFIX).startswith(_OWN) for key in weights)


def part(weights: Mapping[str, Tensor]) -> Part:
    """Return the VAE that `weights` hold. Raises ModelFileError unless they hold exactly one."""
    if not holds_one(weights):
        raise ModelFileError("is not a VAE: it does not hold an encoder and a decoder alone")
    named = {key.removeprefix(VAE_PREFIX): value for key, value in weights.items()}
    own = {key: value for key, value in named.items() if key.startswith(_PARTS)}
    if any(key.startswith("encoder.down_blocks.") for key in own):
        return Part(_config(own, "down_blocks", "resnets"), new_attention(own))
    config = _config(own, "down", "block")
    return Part(config, renamed(original.convert_ldm_vae_checkpoint, own, config))


def _config(weights: Mapping[str, Tensor], levels: str, blocks: str) -> Config:
    """Return the configuration that fits the weights; norms have 32 groups in every VAE of Stable Diffusion."""
    first = f"encoder.{levels}.0.{blocks}."
    try:
        widths = [weights[f"encoder.{levels}.{level}.{blocks}.0.conv2.weight"].shape[0] for level in range(_LEVELS)]
        colours, latent = weights["encoder.conv_in.weight"].shape[1], weights["decoder.conv_in.weight"].shape[1]
    except (LookupError, ValueError) as error:
        raise ModelFileError(f"is not a VAE of Stable Diffusion: {error} is missing or misshapen") from error
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
