"""The forms that checkpoints come in, brought into one: parts with configurations and weights under diffusers' names.

Imports diffusers, which takes seconds: imported where a checkpoint is read, not before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from diffusers.loaders import single_file_utils as original
from torch import Tensor

from shared.errors import ModelFileError
from worker.engine import tensors
from worker.engine.schedules import SigmaTable

Config = dict[str, Any]
SD1: Final = Path(__file__).parent / "configs" / "stable-diffusion-v1.yaml"
_UNET: Final = "model.diffusion_model."
_VAE: Final = "first_stage_model."
_TEXT: Final = "cond_stage_model.transformer."
_NOT_SD1: Final = {
    "conditioner.embedders.": "Stable Diffusion XL",
    "cond_stage_model.model.": "Stable Diffusion 2",
    f"{_UNET}joint_blocks.": "Stable Diffusion 3",
    f"{_UNET}double_blocks.": "Flux",
    "double_blocks.": "Flux",
}
_OLD_ATTENTION: Final = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class Part:
    """One network: what it is built from, and its weights under diffusers' (or transformers') names."""

    config: Config
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class Parts:
    """A whole checkpoint, and the figures that it states."""

    unet: Part
    vae: Part
    text_encoder: Part
    sigmas: SigmaTable
    predicts_velocity: bool
    latent_scale: float
    native_size: int  # pixels of a side


def read(path: Path, where: tensors.Where = "cpu") -> Parts:
    """Return the parts of a checkpoint: a single file in the original layout or a diffusers folder.

    Raises ModelFileError that says why it cannot be used.
    """
    try:
        return _of_folder(path, where) if path.is_dir() else _of_file(path, where)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(f"its configuration does not describe it ({type(error).__name__}: {error})") from error


def _of_file(path: Path, where: tensors.Where) -> Parts:
    weights = tensors.read(path, where)
    _require_sd1(weights)
    beside = path.with_suffix(".yaml")
    config = _yaml(beside if beside.exists() else SD1)
    params = config["model"]["params"]
    unet = original.create_unet_diffusers_config_from_ldm(config, {})
    vae = original.create_vae_diffusers_config_from_ldm(config, {})
    text = _text_weights(weights)
    return Parts(
        unet=Part(unet, original.convert_ldm_unet_checkpoint(_under(_UNET, weights), unet)),
        vae=Part(vae, original.convert_ldm_vae_checkpoint(_under(_VAE, weights), vae)),
        text_encoder=Part(_text_config(text), text),
        sigmas=SigmaTable.scaled_linear(params["linear_start"], params["linear_end"], params["timesteps"]),
        predicts_velocity=params.get("parameterization", "eps") == "v",
        latent_scale=float(vae["scaling_factor"]),
        native_size=params["image_size"] * 8,
    )


def _require_sd1(weights: Mapping[str, Tensor]) -> None:
    for prefix, name in _NOT_SD1.items():
        if any(key.startswith(prefix) for key in weights):
            raise ModelFileError(f"is {name}, which is not supported yet; Stable Diffusion 1 is")
    for prefix, what in ((_UNET, "U-Net"), (_VAE, "VAE"), (_TEXT, "text encoder")):
        if not any(key.startswith(prefix) for key in weights):
            raise ModelFileError(f"is no Stable Diffusion checkpoint: it holds no {what} ({prefix}*)")
    first = weights.get(f"{_UNET}input_blocks.0.0.weight")
    if first is not None and first.shape[1] != 4:
        raise ModelFileError(f"its U-Net takes {first.shape[1]} channels, as for inpainting: not supported yet")


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if key.startswith(prefix)}


def _yaml(path: Path) -> Config:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ModelFileError(f"{path.name} beside it cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise ModelFileError(f"{path.name} beside it describes no model")
    return config


def _text_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text encoder's weights; merged files may lack `text_model.`, older ones hold a table of positions."""
    named = {
        key.removeprefix(_TEXT).removeprefix("text_model."): value for key, value in _under(_TEXT, weights).items()
    }
    return {key: value for key, value in named.items() if not key.endswith("position_ids")}


def _text_config(weights: Mapping[str, Tensor]) -> Config:
    """The text encoder as its weights have it; heads are 64 wide in every CLIP."""
    vocabulary, width = weights["embeddings.token_embedding.weight"].shape
    layers = {key.split(".")[2] for key in weights if key.startswith("encoder.layers.")}
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // 64,
        "max_position_embeddings": weights["embeddings.position_embedding.weight"].shape[0],
        "projection_dim": width,
    }


def _of_folder(path: Path, where: tensors.Where) -> Parts:
    if (kind := _json(path / "model_index.json")["_class_name"]) != "StableDiffusionPipeline":
        raise ModelFileError(f"is a {kind}, which is not supported yet; StableDiffusionPipeline is")
    unet, vae, text = (_json(path / name / "config.json") for name in ("unet", "vae", "text_encoder"))
    if unet["in_channels"] != 4 or unet["cross_attention_dim"] == 1024:
        raise ModelFileError("is Stable Diffusion 2 or an inpainting model: not supported yet; Stable Diffusion 1 is")
    noise = _json(path / "scheduler" / "scheduler_config.json")
    if noise.get("beta_schedule") != "scaled_linear":
        raise ModelFileError(f"its beta schedule is {noise.get('beta_schedule')!r}; scaled_linear is supported")
    words = _folder_weights(path / "text_encoder", where)
    named = {key.removeprefix("text_model."): value for key, value in words.items() if not key.endswith("position_ids")}
    return Parts(
        unet=Part(unet, _folder_weights(path / "unet", where)),
        vae=Part(vae, _new_attention(_folder_weights(path / "vae", where))),
        text_encoder=Part(text, named),
        sigmas=SigmaTable.scaled_linear(noise["beta_start"], noise["beta_end"], noise["num_train_timesteps"]),
        predicts_velocity=noise.get("prediction_type", "epsilon") == "v_prediction",
        latent_scale=float(vae.get("scaling_factor", original.LDM_VAE_DEFAULT_SCALING_FACTOR)),
        native_size=unet["sample_size"] * 8,
    )


def _json(path: Path) -> Config:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path.parent.name}/{path.name} cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise ModelFileError(f"{path.parent.name}/{path.name} describes no model")
    return config


def _folder_weights(folder: Path, where: tensors.Where) -> dict[str, Tensor]:
    """The weights of one network: safetensors before pickles, the plain file before its half-precision twin."""
    stems = ("diffusion_pytorch_model", "model", "pytorch_model")
    names = [f"{stem}{twin}{suffix}" for suffix in (".safetensors", ".bin") for twin in ("", ".fp16") for stem in stems]
    for name in names:
        if (folder / name).exists():
            return tensors.read(folder / name, where)
    raise ModelFileError(f"{folder.name}/ holds no weights in one file")


def _new_attention(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A VAE's weights with the names that its attention had at first brought up to date."""
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        for old, new in _OLD_ATTENTION.items() if ".attentions." in key else ():
            key = key.replace(old, new)  # noqa: PLW2901 - at most one of them applies
        renamed[key] = value
    return renamed
