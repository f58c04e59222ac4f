"""Tiny decoders such as TAESD's: they turn latents into pictures at a hundredth of a VAE's cost, for previews.

Read under the original names (`1.weight`, `3.conv.0.weight`, …) and under diffusers' (`decoder.layers.…`), the latter
with an encoder beside it or without. Imports diffusers, which takes seconds: imported when a file is read, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.architectures.base import Architecture
from worker.engine.architectures.parts import Part
from worker.engine.files.config_bounds import Config

_LATENT: Final = Architecture.latent
CONFIG: Final[Config] = {
    "in_channels": _LATENT.channels,
    "out_channels": 3,
    "num_blocks": (3, 3, 3, 1),
    "block_out_channels": (64, 64, 64, 64),
    "upsampling_scaling_factor": 2,
    "act_fn": "relu",
    "upsample_fn": "nearest",
}
"""The configuration of every tiny decoder."""

_DIFFUSERS: Final = "decoder."
_ORIGINAL: Final = {"1.weight", "3.conv.0.weight"}  # layer 0 clamps, and has no weights
_ENCODER: Final = {"0.weight", "1.conv.0.weight"}


def holds_one(weights: Mapping[str, Tensor]) -> bool:
    """Return whether these are a tiny decoder's weights, or those of the encoder that comes with it."""
    names = weights.keys()
    return names >= _ORIGINAL or names >= _ENCODER or any(name.startswith(f"{_DIFFUSERS}layers.") for name in names)


def part(weights: Mapping[str, Tensor]) -> Part:
    """Return the tiny decoder that `weights` hold. Raises ModelFileError if they hold none for these latents."""
    if not holds_one(weights):
        raise ModelFileError("is not a tiny decoder: it holds no layers of one")
    if weights.keys() >= _ENCODER and not weights.keys() >= _ORIGINAL:
        raise ModelFileError("is the encoder of a tiny autoencoder; previews need its decoder")
    named = _in_diffusers_form(weights)
    first = named.get("layers.0.weight")
    if first is not None and first.dim() == 4 and first.shape[1] != _LATENT.channels:
        raise ModelFileError(
            f"decodes latents of {first.shape[1]} channels; those of Stable Diffusion 1 have {_LATENT.channels}"
        )
    return Part(CONFIG, named)


def _in_diffusers_form(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if weights.keys() >= _ORIGINAL:
        split = {name: name.partition(".") for name in weights}
        return {
            f"layers.{int(number) - 1}.{rest}" if number.isdecimal() else name: weights[name]
            for name, (number, _, rest) in split.items()
        }
    return {name.removeprefix(_DIFFUSERS): value for name, value in weights.items() if name.startswith(_DIFFUSERS)}
