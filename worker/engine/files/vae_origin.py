"""The architecture whose latents a VAE's file decodes, as far as something beside its weights says it.

The VAEs of Stable Diffusion 1 and of XL have the same names and shapes of weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from shared.models import regular_files

_MODELSPEC: Final = {  # beginnings of `modelspec.architecture` in a safetensors file's metadata
    "stable-diffusion-v1": "sd1",
    "stable-diffusion-v2": "sd2",
    "stable-diffusion-xl-v1": "sdxl",
}
_SCALES: Final = {0.18215: "sd1", 0.13025: "sdxl"}  # `scaling_factor` in diffusers' config.json
_DIFFUSERS: Final = "diffusion_pytorch_model."
_MOST_BYTES: Final = 2**16  # of such a configuration


def architecture(path: Path) -> str | None:
    """Return the architecture that the VAE at `path` was made for; None: nothing says it."""
    return _by_metadata(path) or _by_config(path)


def _by_metadata(path: Path) -> str | None:
    try:
        with safe_open(path, framework="numpy") as file:
            stated = str((file.metadata() or {}).get("modelspec.architecture", "")).casefold()
    except (OSError, SafetensorError):  # a pickle has no metadata
        return None
    return next((name for start, name in _MODELSPEC.items() if stated.startswith(start)), None)


def _by_config(path: Path) -> str | None:
    """Return what the configuration says that lies beside a file of diffusers; it belongs to no other file."""
    if not path.name.startswith(_DIFFUSERS):
        return None
    try:
        with regular_files.opened(path.with_name("config.json")) as file:
            config = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    is_vae = isinstance(config, dict) and config.get("_class_name") == "AutoencoderKL"
    scale = config.get("scaling_factor", 0.18215) if is_vae else None
    return _SCALES.get(scale) if isinstance(scale, float) else None
