"""The layouts of checkpoint files, converted to one: parts with configurations and weights under diffusers' names.

Imports diffusers, which takes seconds: imported when a checkpoint is read, not before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import torch
import yaml
from diffusers.loaders import single_file_utils as original
from torch import Tensor

from shared.errors import ModelFileError
from shared.models import regular_files
from worker.engine.architectures.base import Architecture
from worker.engine.architectures.parts import Figures, Part, Parts
from worker.engine.architectures.prediction import Prediction
from worker.engine.files import config_bounds as figures
from worker.engine.files import kinds, tensors
from worker.engine.files.config_bounds import UNFIT, Config, moderate, shown
from worker.engine.files.kinds import OtherKind

_LATENT: Final = Architecture.latent
_CONFIGS: Final = Path(__file__).parents[1] / "configs"
SD1: Final = _CONFIGS / "stable-diffusion-v1.yaml"
_BY_WIDTH: Final = {
    64: _CONFIGS / "demo-v1.yaml"
}  # width of the U-Net's first layer -> configuration of files without a .yaml
_UNET: Final = "model.diffusion_model."
VAE_PREFIX: Final = "first_stage_model."
_TEXT: Final = "cond_stage_model.transformer."
CHECKPOINT_PREFIXES: Final = ("model.diffusion_model.", "cond_stage_model.", "conditioner.")  # which no VAE alone has
_TRAINING: Final = tuple(f"{VAE_PREFIX}{left}." for left in ("loss", "model_ema", "discriminator"))  # left by training
_NOT_USED: Final = ("position_ids", "text_projection.weight", "visual_projection.weight", "logit_scale")
"""Weights of a whole CLIP, or numbered again after loading."""
_VISION: Final = "vision_model."  # of a whole CLIP
_TEXT_FIGURES: Final = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "projection_dim", "hidden_act", "layer_norm_eps",
)  # fmt: skip
_MOST_WEIGHTS: Final = 4096  # of one network; Stable Diffusion's U-Net has 686
_MOST_BYTES: Final = 2**16  # of a configuration
_MOST_FILES: Final = 64  # of one network
_MOST_INDEX_BYTES: Final = 2**22  # of the list of a network's files
_WITHOUT_EFFECT: Final = {  # keys of an original configuration that change no picture, or follow from the weights
    "unet_config": {"image_size", "in_channels", "legacy", "use_checkpoint", "use_fp16", "use_spatial_transformer"},
    "ddconfig": {"attn_resolutions", "double_z", "dropout", "resolution"},
}
_STATED: Final = ("linear_start", "linear_end", "timesteps", "parameterization", "image_size", "scale_factor")
_OTHER_PIPELINES: Final = (  # with names that begin like those of Stable Diffusion 1
    "StableDiffusionXL", "StableDiffusion3", "StableDiffusionInstructPix2Pix", "StableDiffusionUpscale",
    "StableDiffusionLatentUpscale", "StableDiffusionDepth2Img", "StableDiffusionImageVariation",
    "StableDiffusionGLIGEN", "StableDiffusionLDM3D", "StableDiffusionAdapter",
)  # fmt: skip
_OLD_ATTENTION: Final = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


class Described(NamedTuple):
    """The contents of a configuration in the original layout."""

    unet: Config
    vae: Config
    figures: Figures
    digest: str  # of all keys with an effect


def read(path: Path, where: tensors.Where = "cpu") -> Parts:
    """Return the parts of a checkpoint: a single file in the original layout or a diffusers folder.

    Raises ModelFileError with the reason if it cannot be used.
    """
    return _of_folder(path, where) if path.is_dir() else of_file(path, tensors.read(path, where))


def of_file(path: Path, weights: Mapping[str, Tensor]) -> Parts:
    """Return the parts of the checkpoint at `path` with these weights. Raises ModelFileError."""
    kinds.require_known(weights)
    for prefix, what in ((_UNET, "U-Net"), (_TEXT, "text encoder")):
        if not any(key.startswith(prefix) for key in weights):
            raise ModelFileError(f"is neither a Stable Diffusion checkpoint nor a VAE: it holds no {what} ({prefix}*)")
    first = _first_layer(weights)
    beside = path.with_suffix(".yaml")
    alone = _BY_WIDTH.get(first.shape[0], SD1)
    stated = _described(beside if beside.exists() else alone)
    unet = stated.unet | {"in_channels": first.shape[1]}  # inpainting checkpoints come without the .yaml that says so
    text, vae = _text_weights(_under(_TEXT, weights)), _under(VAE_PREFIX, weights)
    networks = {
        "unet": Part(unet, renamed(original.convert_ldm_unet_checkpoint, _under(_UNET, weights), unet)),
        "text_encoder": Part(_text_config(text), text),
    }
    if vae:
        networks["vae"] = Part(stated.vae, renamed(original.convert_ldm_vae_checkpoint, vae, stated.vae))
    return Parts(
        networks,
        architecture="sd1",
        figures=stated.figures,
        description=None if stated.digest == _described(alone).digest else stated.digest,
    )


def _described(path: Path) -> Described:
    """Read the .yaml at `path`. Numbers are checked before anything is computed from them."""
    try:
        config = yaml.safe_load(_text(path))
        params = config["model"]["params"]
        moderate(params["unet_config"]["params"])
        moderate(params["first_stage_config"]["params"]["ddconfig"])
        unet = moderate(original.create_unet_diffusers_config_from_ldm(config, {}))
        vae = moderate(original.create_vae_diffusers_config_from_ldm(config, {}))
        stated = Figures(
            figures.sigmas(params["linear_start"], params["linear_end"], params["timesteps"]),
            _prediction(params.get("parameterization", "eps"), noise="eps", velocity="v"),
            figures.positive("scale factor", vae["scaling_factor"]),
            figures.native_size(params["image_size"]),
        )
        digest = _digest(params)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        place = f" in line {at.line + 1}, column {at.column + 1}" if at else ""
        raise ModelFileError(f"{path.name} beside it is not YAML: an error{place}") from error
    except (*UNFIT, yaml.YAMLError) as error:  # its message repeats the file, which may be a link to any file
        why = type(error).__name__
        raise ModelFileError(f"{path.name} beside it describes no Stable Diffusion model ({why})") from error
    return Described(unet, vae, stated, digest)


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


def _prediction(stated: object, *, noise: str, velocity: str) -> Prediction:
    if stated not in (noise, velocity):
        raise ModelFileError(f"it predicts {shown(stated)}; {noise} and {velocity} are supported")
    return Prediction.VELOCITY if stated == velocity else Prediction.NOISE


def _first_layer(weights: Mapping[str, Tensor]) -> Tensor:
    """Return the U-Net's first layer, which takes 4 channels, or 9 in an inpainting checkpoint."""
    first = weights.get(f"{_UNET}input_blocks.0.0.weight")
    if first is None or first.dim() != 4:
        raise ModelFileError(f"its U-Net's first layer ({_UNET}input_blocks.0.0.weight) is missing or misshapen")
    _require_channels(first.shape[1])
    return first


def _require_channels(channels: object) -> None:
    if channels == 8:
        raise ModelFileError("is an InstructPix2Pix checkpoint, whose U-Net takes 8 channels: not supported")
    if channels not in (_LATENT.channels, _LATENT.channels + _LATENT.mask_channels):
        raise ModelFileError(f"its U-Net takes {shown(channels)} channels; 4, or 9 for inpainting, are supported")


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if key.startswith(prefix) and not key.startswith(_TRAINING)}


def renamed(
    convert: Callable[[dict[str, Tensor], Config], Mapping[str, Tensor | None]],
    weights: Mapping[str, Tensor],
    config: Config,
) -> dict[str, Tensor]:
    """Return the weights under the names, and in the shapes, that `convert` gives them.

    It gets only shapes, each a separate tensor, to learn which weights it drops silently.
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


def _text(path: Path, most_bytes: int = _MOST_BYTES) -> str:
    """Return the text of a configuration file."""
    try:
        with regular_files.opened(path) as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise ModelFileError(f"{path.name} is larger than any configuration")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ModelFileError(f"{path.parent.name}/{path.name} cannot be read ({why})") from error


def _text_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the text encoder's weights; merged files may lack `text_model.`, older ones hold a table of positions."""
    named = {key.removeprefix(_TEXT).removeprefix("text_model."): value for key, value in weights.items()}
    return {key: value for key, value in named.items() if not key.endswith(_NOT_USED) and not key.startswith(_VISION)}


def _text_config(weights: Mapping[str, Tensor]) -> Config:
    """Return the text encoder's configuration by its weights; heads are 64 wide in every CLIP."""
    try:
        vocabulary, width = weights["embeddings.token_embedding.weight"].shape
        positions = weights["embeddings.position_embedding.weight"].shape[0]
        inner = weights["encoder.layers.0.mlp.fc1.weight"].shape[0]
    except (LookupError, ValueError) as error:
        raise ModelFileError(f"its text encoder is not CLIP's: {error} is missing or misshapen") from error
    layers = {key.split(".")[2] for key in weights if key.startswith("encoder.layers.")}
    if not width or width % 64:
        raise ModelFileError(f"its text encoder is {width} wide; it must be a multiple of 64, the width of a head")
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
    networks = {
        "unet": Part(unet, _folder_weights(path / "unet", where)),
        "text_encoder": Part(text, _text_weights(_folder_weights(path / "text_encoder", where))),
    }
    if vae:
        networks["vae"] = Part(vae, new_attention(_folder_weights(path / "vae", where)))
    return Parts(networks, architecture="sd1", figures=stated)


def _described_by_folder(path: Path) -> tuple[Config, Config | None, Config, Figures]:
    """Return the configurations of U-Net, VAE and text encoder, and the figures that they state."""
    _require_pipeline(_json(path / "model_index.json").get("_class_name"))
    unet, text = _json(path / "unet" / "config.json"), _json(path / "text_encoder" / "config.json")
    vae = moderate(_json(path / "vae" / "config.json")) if (path / "vae").is_dir() else None
    text = text.get("text_config", text)  # of a whole CLIP
    _require_channels(unet.get("in_channels", _LATENT.channels))
    if unet.get("cross_attention_dim") == 1024:
        raise OtherKind("a Stable Diffusion 2 checkpoint")
    noise = _json(path / "scheduler" / "scheduler_config.json")
    if (betas := noise.get("beta_schedule")) != "scaled_linear" or noise.get("trained_betas") is not None:
        raise ModelFileError(f"its beta schedule is {shown(betas)}, or a list of betas; scaled_linear is supported")
    stated = Figures(
        figures.sigmas(noise.get("beta_start"), noise.get("beta_end"), noise.get("num_train_timesteps", 1000)),
        _prediction(noise.get("prediction_type", "epsilon"), noise="epsilon", velocity="v_prediction"),
        figures.positive("scale factor", (vae or {}).get("scaling_factor", original.LDM_VAE_DEFAULT_SCALING_FACTOR)),
        figures.native_size(unet.get("sample_size", 64)),
    )
    return moderate(unet), vae, moderate({key: text[key] for key in _TEXT_FIGURES if key in text}), stated


def _require_pipeline(kind: object) -> None:
    """Raise unless `kind` is a pipeline with the networks of Stable Diffusion 1."""
    if not isinstance(kind, str) or not kind.isidentifier():
        raise ModelFileError("its model_index.json names no pipeline (_class_name)")
    if not kind.startswith("StableDiffusion") or kind.startswith(_OTHER_PIPELINES):
        raise OtherKind(f"a folder of diffusers' {kind[:60]}")


def _json(path: Path, most_bytes: int = _MOST_BYTES) -> Config:
    try:
        config = json.loads(_text(path, most_bytes))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path.parent.name}/{path.name} cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise ModelFileError(f"{path.parent.name}/{path.name} describes no model")
    return config


_STEMS: Final = ("diffusion_pytorch_model", "model", "pytorch_model")
_VARIANTS: Final = ("", ".fp32", ".fp16", ".bf16", ".ema", ".non_ema")  # the plain file first


def _folder_weights(folder: Path, where: tensors.Where) -> dict[str, Tensor]:
    """Return the weights of one network from one file or several: first safetensors, first the plain variant."""
    for suffix in (".safetensors", ".bin"):
        for variant in _VARIANTS:
            for stem in _STEMS:
                if (whole := folder / f"{stem}{variant}{suffix}").exists():
                    return tensors.read(whole, where)
                for index in (f"{stem}{variant}{suffix}.index.json", f"{stem}{suffix}.index{variant}.json"):
                    if (folder / index).exists():
                        return _sharded(folder / index, where)
    raise ModelFileError(f"{folder.name}/ holds no weights")


def _sharded(index: Path, where: tensors.Where) -> dict[str, Tensor]:
    """Return the weights of a network from the files that `index` lists."""
    listed = _json(index, _MOST_INDEX_BYTES).get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
    if not names or len(names) > _MOST_FILES or any(Path(name).name != name for name in names):
        raise ModelFileError(f"{index.parent.name}/{index.name} lists no files of that folder")
    if missing := [name for name in names if not (index.parent / name).exists()]:
        raise ModelFileError(f"{index.parent.name}/{missing[0]} is missing, which {index.name} lists")
    weights: dict[str, Tensor] = {}
    for name in names:
        weights |= tensors.read(index.parent / name, where)
    return weights


def new_attention(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a VAE's weights, with the former names of its attention replaced by today's."""
    current: dict[str, Tensor] = {}
    for key, value in weights.items():
        for old, new in _OLD_ATTENTION.items() if ".attentions." in key else ():
            key = key.replace(old, new)  # noqa: PLW2901 - at most one of them matches
        current[key] = value
    return current
