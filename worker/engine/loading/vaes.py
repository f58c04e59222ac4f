"""VAEs in files of their own, as people put them beside checkpoints: under the original names, or diffusers'.

Such a file has no configuration: it follows from the shapes of the weights. Imports diffusers, which takes seconds:
imported when a file is read, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Part
from worker.engine.architectures.reading import vae
from worker.engine.files.kinds import CHECKPOINT_PREFIXES

_OWN: Final = tuple(f"{half}.{part}" for half in ("encoder", "decoder") for part in ("conv_in.", "down", "up", "mid"))
"""Names that no other network with an encoder and a decoder has, unless it has a code book."""
_QUANTIZER: Final = "quantize.embedding.weight"
"""The code book of a VQ-VAE, whose latents no U-Net here has: some face restorers are such."""


def holds_one(weights: Mapping[str, Tensor]) -> bool:
    """Return whether these are the weights of a VAE alone, or of one with leftovers of training."""
    is_whole = any(key.startswith(CHECKPOINT_PREFIXES) for key in weights)
    is_quantized = _QUANTIZER in weights
    return not (is_whole or is_quantized) and any(key.removeprefix(vae.PREFIX).startswith(_OWN) for key in weights)


def part(weights: Mapping[str, Tensor]) -> Part:
    """Return the VAE that `weights` hold. Raises ModelFileError unless they hold exactly one."""
    if not holds_one(weights):
        raise ModelFileError("is not a VAE: it does not hold an encoder and a decoder alone")
    return vae.alone(weights)
