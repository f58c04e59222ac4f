"""The forms that checkpoints come in, brought into one: parts with configurations and weights under diffusers' names.

Imports diffusers, which takes seconds: imported where a checkpoint is read, not before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shortened
from typing import Final, NamedTuple

import torch
import yaml
from diffusers.loaders import single_file_utils as original
from torch import Tensor

from shared.errors import ModelFileError
from worker.engine import figures, tensors
from worker.engine.figures import UNFIT, Config, Figures, moderate
from worker.engine.noise import CHANNELS, MASK_CHANNELS

SD1: Final = Path(__file__).parent / "configs" / "stable-diffusion-v1.yaml"
_UNET: Final = "model.diffusion_model."
VAE_PREFIX: Final = "first_stage_model."
_TEXT: Final = "cond_stage_model.transformer."
CHECKPOINT_PREFIXES: Final = ("model.", "cond_stage_model.", "conditioner.")  # what no VAE alone has
_NOT_SD1: Final = {
    "conditioner.embedders.": "Stable Diffusion XL",
    "cond_stage_model.model.": "Stable Diffusion 2",
    f"{_UNET}joint_blocks.": "Stable Diffusion 3",
    f"{_UNET}double_blocks.": "Flux",
    "double_blocks.": "Flux",
}
_TRAINING: Final = (f"{VAE_PREFIX}loss.",)  # what training leaves beside a network
_NOT_USED: Final = ("position_ids", "text_projection.weight", "logit_scale")  # of a whole CLIP, or counted out again
_TEXT_FIGURES: Final = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "projection_dim", "hidden_act", "layer_norm_eps",
)  # fmt: skip
_MOST_WEIGHTS: Final = 4096  # of one network; Stable Diffusion's U-Net has 686
_MOST_BYTES: Final = 2**16  # of a configuration
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
    figures: Figures


class Described(NamedTuple):
    """What a configuration in the original form says."""

    unet: Config
    vae: Config
    figures: Figures


def read(path: Path, where: tensors.Where = "cpu") -> Parts:
    """Return the parts of a checkpoint: a single file in the original layout or a diffusers folder.

    Raises ModelFileError that says why it cannot be used.
    """
    return _of_folder(path, where) if path.is_dir() else of_file(path, tensors.read(path, where))


def of_file(path: Path, weights: Mapping[str, Tensor]) -> Parts:
    """Return the parts of the checkpoint at `path`, whose weights these are. Raises ModelFileError."""
    _require_sd1(weights)
    beside = path.with_suffix(".yaml")
    unet, vae, stated = _described(beside if beside.exists() else SD1)
    unet["in_channels"] = _channels(weights)  # an inpainting checkpoint has a .yaml of its own, seldom beside it
    text = _text_weights(_under(_TEXT, weights))
    return Parts(
        unet=Part(unet, renamed(original.convert_ldm_unet_checkpoint, _under(_UNET, weights), unet)),
        vae=Part(vae, renamed(original.convert_ldm_vae_checkpoint, _under(VAE_PREFIX, weights), vae)),
        text_encoder=Part(_text_config(text), text),
        figures=stated,
    )


def _described(path: Path) -> Described:
    """What the .yaml at `path` says. Numbers are checked before anything is computed with them."""
    try:
        config = yaml.safe_load(_words(path))
        params = config["model"]["params"]
        moderate(params["unet_config"]["params"])
        moderate(params["first_stage_config"]["params"]["ddconfig"])
        unet = moderate(original.create_unet_diffusers_config_from_ldm(config, {}))
        vae = moderate(original.create_vae_diffusers_config_from_ldm(config, {}))
        stated = Figures(
            figures.sigmas(params["linear_start"], params["linear_end"], params["timesteps"]),
            _predicts_velocity(params.get("parameterization", "eps"), noise="eps", velocity="v"),
            figures.positive("scale factor", vae["scaling_factor"]),
            figures.native_size(params["image_size"]),
        )
    except (*UNFIT, yaml.YAMLError) as error:
        raise ModelFileError(
            f"{path.name} beside it describes no Stable Diffusion model ({type(error).__name__}: {error})"
        ) from error
    return Described(unet, vae, stated)


def _predicts_velocity(stated: object, *, noise: str, velocity: str) -> bool:
    if stated not in (noise, velocity):
        raise ModelFileError(f"it predicts {shortened(stated)}; {noise} and {velocity} are supported")
    return stated == velocity


def _require_sd1(weights: Mapping[str, Tensor]) -> None:
    for prefix, name in _NOT_SD1.items():
        if any(key.startswith(prefix) for key in weights):
            raise ModelFileError(f"is {name}, which is not supported yet; Stable Diffusion 1 is")
    for prefix, what in ((_UNET, "U-Net"), (VAE_PREFIX, "VAE"), (_TEXT, "text encoder")):
        if not any(key.startswith(prefix) for key in weights):
            raise ModelFileError(f"is no Stable Diffusion checkpoint, and no VAE: it holds no {what} ({prefix}*)")


def _channels(weights: Mapping[str, Tensor]) -> int:
    """The channels that the U-Net takes: 4, or 9 of an inpainting checkpoint."""
    first = weights.get(f"{_UNET}input_blocks.0.0.weight")
    if first is None or first.dim() != 4:
        raise ModelFileError(f"its U-Net's first layer ({_UNET}input_blocks.0.0.weight) is missing or misshapen")
    _require_channels(first.shape[1])
    return first.shape[1]


def _require_channels(channels: object) -> None:
    if channels == 8:
        raise ModelFileError("is an InstructPix2Pix checkpoint, whose U-Net takes 8 channels: not supported")
    if channels not in (CHANNELS, CHANNELS + MASK_CHANNELS):
        raise ModelFileError(f"its U-Net takes {shortened(channels)} channels; 4, or 9 for inpainting, are supported")


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if key.startswith(prefix) and not key.startswith(_TRAINING)}


def renamed(
    convert: Callable[[dict[str, Tensor], Config], Mapping[str, Tensor | None]],
    weights: Mapping[str, Tensor],
    config: Config,
) -> dict[str, Tensor]:
    """Return the weights under the names, and in the shapes, that `convert` gives them.

    It is shown shapes alone, each a tensor of its own, to learn which it leaves out without a word.
    """
    if len(weights) > _MOST_WEIGHTS:
        raise ModelFileError(f"one of its networks has {len(weights):,} weights; at most {_MOST_WEIGHTS:,} are read")
    shapes = {name: torch.empty(weight.shape, device="meta") for name, weight in weights.items()}
    names = {id(shape): name for name, shape in shapes.items()}
    converted = {new: shape for new, shape in convert(shapes, config).items() if shape is not None}
    sources = {new: names[id(shape if shape._base is None else shape._base)] for new, shape in converted.items()}  # noqa: SLF001 - a view's origin has no other name
    if surplus := sorted(weights.keys() - sources.values()):
        raise ModelFileError(f"it has {len(surplus)} weights too many, first {surplus[0]}")
    return {new: weights[name].reshape(converted[new].shape) for new, name in sources.items()}


def _words(path: Path) -> str:
    """The text of a configuration file."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ModelFileError(f"{path.name} is larger than any configuration")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path.parent.name}/{path.name} cannot be read ({error})") from error


def _text_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text encoder's weights; merged files may lack `text_model.`, older ones hold a table of positions."""
    named = {key.removeprefix(_TEXT).removeprefix("text_model."): value for key, value in weights.items()}
    return {key: value for key, value in named.items() if not key.endswith(_NOT_USED)}


def _text_config(weights: Mapping[str, Tensor]) -> Config:
    """The text encoder as its weights have it; heads are 64 wide in every CLIP."""
    try:
        vocabulary, width = weights["embeddings.token_embedding.weight"].shape
        positions = weights["embeddings.position_embedding.weight"].shape[0]
        inner = weights["encoder.layers.0.mlp.fc1.weight"].shape[0]
    except (LookupError, ValueError) as error:
        raise ModelFileError(f"its text encoder is not CLIP's: {error} is missing or misshapen") from error
    layers = {key.split(".")[2] for key in weights if key.startswith("encoder.layers.")}
    if not width or width % 64:
        raise ModelFileError(f"its text encoder is {width} wide, which is no multiple of 64, the width of a head")
    return moderate(
        {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": len(layers),
            "num_attention_heads": width // 64,
            "max_position_embeddings": positions,
            "projection_dim": width,
        }
    )


def _of_folder(path: Path, where: tensors.Where) -> Parts:
    unet, vae, text, stated = _described_by_folder(path)
    return Parts(
        unet=Part(unet, _folder_weights(path / "unet", where)),
        vae=Part(vae, new_attention(_folder_weights(path / "vae", where))),
        text_encoder=Part(text, _text_weights(_folder_weights(path / "text_encoder", where))),
        figures=stated,
    )


def _described_by_folder(path: Path) -> tuple[Config, Config, Config, Figures]:
    """The configurations of U-Net, VAE and text encoder, and the figures that they state."""
    if (kind := _json(path / "model_index.json").get("_class_name")) != "StableDiffusionPipeline":
        raise ModelFileError(f"is a {shortened(kind)}, which is not supported yet; StableDiffusionPipeline is")
    unet, vae, text = (_json(path / name / "config.json") for name in ("unet", "vae", "text_encoder"))
    _require_channels(unet.get("in_channels"))
    if unet.get("cross_attention_dim") == 1024:
        raise ModelFileError("is Stable Diffusion 2, which is not supported yet; Stable Diffusion 1 is")
    noise = _json(path / "scheduler" / "scheduler_config.json")
    if (betas := noise.get("beta_schedule")) != "scaled_linear":
        raise ModelFileError(f"its beta schedule is {shortened(betas)}; scaled_linear is supported")
    stated = Figures(
        figures.sigmas(noise.get("beta_start"), noise.get("beta_end"), noise.get("num_train_timesteps")),
        _predicts_velocity(noise.get("prediction_type", "epsilon"), noise="epsilon", velocity="v_prediction"),
        figures.positive("scale factor", vae.get("scaling_factor", original.LDM_VAE_DEFAULT_SCALING_FACTOR)),
        figures.native_size(unet.get("sample_size")),
    )
    return moderate(unet), moderate(vae), moderate({key: text[key] for key in _TEXT_FIGURES if key in text}), stated


def _json(path: Path) -> Config:
    try:
        config = json.loads(_words(path))
    except (ValueError, RecursionError) as error:
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


def new_attention(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a VAE's weights with the names that its attention had at first brought up to date."""
    current: dict[str, Tensor] = {}
    for key, value in weights.items():
        for old, new in _OLD_ATTENTION.items() if ".attentions." in key else ():
            key = key.replace(old, new)  # noqa: PLW2901 - at most one of them applies
        current[key] = value
    return current
