"""The `.yaml` beside a single file: what it states about the checkpoint, and whether it contradicts the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.errors import ModelFileError
from worker.engine.architectures.prediction import Prediction
from worker.engine.files import config_bounds as figures
from worker.engine.files import descriptions
from worker.engine.files.config_bounds import Config, shown
from worker.engine.sigma_table import SigmaTable

_PARAMETERIZATIONS: Final = {"eps": Prediction.NOISE, "v": Prediction.VELOCITY}
_SCALINGS: Final = {"EpsScaling": Prediction.NOISE, "VScaling": Prediction.VELOCITY}
_BETAS: Final = {"linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}


@dataclass(frozen=True)
class Stated:
    """What a description states; None: nothing."""

    prediction: Prediction | None = None
    sigmas: SigmaTable | None = None
    latent_scale: float | None = None
    native_size: int | None = None  # pixels of a side


def stated(path: Path, unet: Config, vae: Config | None) -> Stated:
    """Return what the .yaml beside the checkpoint at `path` states, if there is one.

    Raises ModelFileError if it contradicts the configurations of the networks, which follow from their weights.
    """
    beside = path.with_suffix(".yaml")
    if not beside.exists():
        return Stated()
    params = within(descriptions.read_yaml(beside), "model", "params")
    if not isinstance(params, Mapping):
        raise ModelFileError(f"{beside.name} beside it describes no Stable Diffusion model (it has no model: params:)")
    require_agreement(beside, _compared(params, unet, vae))
    betas = {key: params.get(key, usual) for key, usual in _BETAS.items()}
    return Stated(
        prediction=_prediction(params),
        sigmas=figures.sigmas(*betas.values()) if betas != _BETAS else None,
        latent_scale=figures.positive("scale factor", params["scale_factor"]) if "scale_factor" in params else None,
        native_size=figures.native_size(params["image_size"]) if "image_size" in params else None,
    )


def require_agreement(beside: Path, compared: Iterable[tuple[str, object, object]]) -> None:
    """Raise ModelFileError if a value in `beside` is another than the weights': name, value, and what these say."""
    for key, told, real in compared:
        if told is not None and told != real:
            raise ModelFileError(
                f"{beside.name} beside it contradicts its weights: it says {key} {_short(told)}, and they have "
                f"{_short(real)}. Remove it, or put the checkpoint's own there"
            )


def _prediction(params: Mapping[str, Any]) -> Prediction | None:
    told = params.get("parameterization")
    if told is not None:
        if not isinstance(told, str) or told not in _PARAMETERIZATIONS:
            raise ModelFileError(f"it predicts {shown(told)}; eps and v are supported")
        return _PARAMETERIZATIONS[told]
    target = within(params, "denoiser_config", "params", "scaling_config", "target")
    if target is None:
        return None
    scaling = target.rpartition(".")[2] if isinstance(target, str) else target
    if not isinstance(scaling, str) or scaling not in _SCALINGS:
        raise ModelFileError(f"its scaling is {shown(scaling)}; EpsScaling and VScaling are supported")
    return _SCALINGS[scaling]


def _compared(params: Mapping[str, Any], unet: Config, vae: Config | None) -> Iterator[tuple[str, object, object]]:
    """Yield each key of a description that follows from the weights: its name, its value, and what the weights say."""
    widths, first = unet["block_out_channels"], unet["block_out_channels"][0]
    for name in ("unet_config", "network_config"):
        said = within(params, name, "params")
        if isinstance(said, Mapping):
            yield "model_channels", said.get("model_channels"), first
            yield "channel_mult", said.get("channel_mult"), [width // first for width in widths]
            yield "num_res_blocks", said.get("num_res_blocks"), unet["layers_per_block"]
            yield "context_dim", _first(said.get("context_dim")), unet["cross_attention_dim"]
            yield "out_channels", said.get("out_channels"), unet["out_channels"]
            yield "adm_in_channels", said.get("adm_in_channels"), unet.get("projection_class_embeddings_input_dim")
            yield "num_head_channels", said.get("num_head_channels"), first // unet["attention_head_dim"][0]
            yield "use_linear_in_transformer", said.get("use_linear_in_transformer"), unet["use_linear_projection"]
    drawn = within(params, "first_stage_config", "params", "ddconfig")
    if vae and isinstance(drawn, Mapping):
        yield "ch", drawn.get("ch"), vae["block_out_channels"][0]
        yield "z_channels", drawn.get("z_channels"), vae["latent_channels"]


def within(config: object, *path: str) -> object:
    """Return the value at `path` in nested mappings; None if there is none."""
    for key in path:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else value


def _short(value: object) -> str:
    if isinstance(value, list) and len(value) <= 8:
        return f"[{', '.join(map(shown, value))}]"
    return shown(value)
