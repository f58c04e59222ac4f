"""Reads Stable Diffusion 1: files with CLIP-L, and their folders.

Imports diffusers, which takes seconds: imported when a checkpoint is read, not before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from diffusers.loaders import single_file_utils as original
from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Figures, Parts
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.reading import original_config, unet, vae
from worker.engine.architectures.reading.reader import VELOCITY, ZERO_TERMINAL_SNR, Expected, Reader
from worker.engine.architectures.reading.text import ClipText
from worker.engine.architectures.sd1 import SD1
from worker.engine.files import config_bounds as figures
from worker.engine.files import descriptions
from worker.engine.files.config_bounds import UNFIT, Config, moderate, shown

_CONFIGS: Final = Path(__file__).parents[2] / "configs"
_USUAL: Final = _CONFIGS / "stable-diffusion-v1.yaml"
_BY_WIDTH: Final = {
    64: _CONFIGS / "demo-v1.yaml"
}  # width of the U-Net's first layer -> configuration of files without a .yaml
_WITHOUT_EFFECT: Final = {  # keys of an original configuration that change no picture, or follow from the weights
    "unet_config": {"image_size", "in_channels", "legacy", "use_checkpoint", "use_fp16", "use_spatial_transformer"},
    "ddconfig": {"attn_resolutions", "double_z", "dropout", "resolution"},
}
_STATED: Final = ("linear_start", "linear_end", "timesteps", "parameterization", "image_size", "scale_factor")
_PARAMETERIZATIONS: Final = {"eps": Prediction.NOISE, "v": Prediction.VELOCITY}


class _Described(NamedTuple):
    """The contents of a configuration in the original layout."""

    unet: Config
    vae: Config
    figures: Figures
    states_prediction: bool
    digest: str  # of all keys with an effect


class SD1Reader(Reader):
    """Reads Stable Diffusion 1.x. Its .yaml says what the weights do not: into how many heads a layer is divided."""

    architecture = SD1()
    texts: ClassVar = {"text_encoder": ClipText("cond_stage_model.transformer.")}

    def of_file(self, path: Path, weights: Mapping[str, Tensor]) -> Parts:
        """Return the checkpoint in the single file at `path`. Raises ModelFileError."""
        text = self.texts["text_encoder"]
        for prefix, what in ((unet.PREFIX, "U-Net"), (text.prefix, "text encoder")):
            if not any(key.startswith(prefix) for key in weights):
                missing = f"it holds no {what} ({prefix}*)"
                raise ModelFileError(f"is neither a Stable Diffusion checkpoint nor a VAE: {missing}")
        channels, width = unet.first_layer(weights)
        self.require_channels(channels)
        beside, alone = path.with_suffix(".yaml"), _BY_WIDTH.get(width, _USUAL)
        described = _described(beside if beside.exists() else alone)
        if beside.exists():
            first, context = described.unet["block_out_channels"][0], described.unet["cross_attention_dim"]
            real = ("model_channels", first, width), ("context_dim", context, unet.context_width(weights))
            original_config.require_agreement(beside, real)
        config = described.unet | {"in_channels": channels}  # inpainting checkpoints seldom have the .yaml that says so
        networks = {"unet": unet.part(weights, config), "text_encoder": text.part(weights)}
        if drawn := vae.inside(weights):
            networks["vae"] = vae.described(drawn, described.vae)
        return Parts(
            networks,
            self.architecture.name,
            _by_keys(described, weights).with_notes(unet.note(weights)),
            None if described.digest == _described(alone).digest else described.digest,
        )

    def expected(self, weights: Mapping[str, Tensor], prediction: Prediction | None) -> Expected:
        """Return what the file says, else noise."""
        del weights
        return Expected(prediction or Prediction.NOISE, 512)


def usual_heads(width: int) -> int:
    """Return how many heads a layer of attention has if nothing says it, by the width of a U-Net's first layer."""
    heads: int = _described(_BY_WIDTH.get(width, _USUAL)).unet["attention_head_dim"]
    return heads


def _by_keys(described: _Described, weights: Mapping[str, Tensor]) -> Figures:
    """Return the figures of a description with what the names of tensors say beside it."""
    stated = described.figures
    if VELOCITY in weights and not described.states_prediction:
        stated = replace(stated, prediction=Prediction.VELOCITY)
    return replace(stated, sigmas=stated.sigmas.at_zero_terminal_snr()) if ZERO_TERMINAL_SNR in weights else stated


def _described(path: Path) -> _Described:
    """Read the .yaml at `path`. Numbers are checked before anything is computed from them."""
    config: Any = descriptions.read_yaml(path)
    try:
        params = config["model"]["params"]
        moderate(params["unet_config"]["params"])
        moderate(params["first_stage_config"]["params"]["ddconfig"])
        drawn = moderate(original.create_vae_diffusers_config_from_ldm(config, {}))
        told = params.get("parameterization")
        if told is not None and told not in _PARAMETERIZATIONS:
            raise ModelFileError(f"it predicts {shown(told)}; eps and v are supported")
        return _Described(
            unet=moderate(original.create_unet_diffusers_config_from_ldm(config, {})),
            vae=drawn,
            figures=Figures(
                figures.sigmas(params["linear_start"], params["linear_end"], params["timesteps"]),
                _PARAMETERIZATIONS.get(told, Prediction.NOISE),
                figures.positive("scale factor", drawn["scaling_factor"]),
                figures.native_size(params["image_size"]),
            ),
            states_prediction=told is not None,
            digest=_digest(params),
        )
    except UNFIT as error:  # its message repeats the file, which may be a link to any file
        why = type(error).__name__
        raise ModelFileError(f"{path.name} beside it describes no Stable Diffusion model ({why})") from error


def _digest(params: Config) -> str:
    """Return the digest of a configuration: equal for two with the same effect."""
    parts = {
        "unet_config": params["unet_config"]["params"],
        "ddconfig": params["first_stage_config"]["params"]["ddconfig"],
    }
    networks = {
        name: {key: value for key, value in part.items() if key not in _WITHOUT_EFFECT[name]}
        for name, part in parts.items()
    }
    stated = {"parameterization": "eps"} | {name: params[name] for name in _STATED if name in params}
    return hashlib.sha256(json.dumps([stated, networks], sort_keys=True).encode()).hexdigest()
