"""Reads diffusers' folders, whose configurations say what a checkpoint is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Figures, Part, Parts
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.reading import text, vae
from worker.engine.architectures.reading.reader import Reader
from worker.engine.files import config_bounds as figures
from worker.engine.files import folders
from worker.engine.files.config_bounds import Config, moderate, shown
from worker.engine.files.descriptions import read_json
from worker.engine.files.kinds import OtherKind
from worker.engine.files.tensors import Where

_XL: Final = "StableDiffusionXL"
_OTHER_PIPELINES: Final = (  # with names that begin like those of Stable Diffusion
    "StableDiffusion3", "StableDiffusionInstructPix2Pix", "StableDiffusionUpscale",
    "StableDiffusionLatentUpscale", "StableDiffusionDepth2Img", "StableDiffusionImageVariation",
    "StableDiffusionGLIGEN", "StableDiffusionLDM3D", "StableDiffusionAdapter", "StableDiffusionXLAdapter",
    "StableDiffusionXLInstructPix2Pix",
)  # fmt: skip
_NO_EFFECT: Final = {"latents_mean": 0, "latents_std": 1, "shift_factor": 0}  # values that leave a VAE's latents as is
_PREDICTIONS: Final = {"epsilon": Prediction.NOISE, "v_prediction": Prediction.VELOCITY}


def architecture(path: Path) -> str:
    """Return the name of the architecture of the folder at `path`. Raises ModelFileError."""
    index = read_json(path / "model_index.json")
    kind = index.get("_class_name")
    if not isinstance(kind, str) or not kind.isidentifier():
        raise ModelFileError("its model_index.json names no pipeline (_class_name)")
    if not kind.startswith("StableDiffusion") or kind.startswith(_OTHER_PIPELINES):
        raise OtherKind(f"a folder of diffusers' {kind[:60]}")
    if kind.startswith(_XL):
        listed = index.get("text_encoder", [])  # [null, null] for the refiner
        is_listed = isinstance(listed, list) and any(listed)
        return "sdxl" if is_listed or (path / "text_encoder").is_dir() else "sdxl-refiner"
    words = read_json(path / "text_encoder" / "config.json")
    is_open_clip = words.get("text_config", words).get("hidden_act") == "gelu"  # OpenAI's CLIP has quick_gelu
    return "sd2" if is_open_clip else "sd1"


def read(path: Path, reader: Reader, where: Where) -> Parts:
    """Return the checkpoint in the folder at `path`. Raises ModelFileError."""
    unet = read_json(path / "unet" / "config.json")
    reader.require_channels(unet.get("in_channels", reader.architecture.latent.channels))
    drawn = moderate(read_json(path / "vae" / "config.json")) if (path / "vae").is_dir() else None
    _require_scaled_alone(drawn or {})
    words = {name: read_json(path / name / "config.json") for name in reader.texts}
    stated = _figures(path, unet, drawn, reader)
    networks = {"unet": Part(moderate(unet), folders.weights(path / "unet", where))}
    for name, config in words.items():
        has_projection = name == "text_encoder_2"
        networks[name] = text.of_folder(config, folders.weights(path / name, where), has_projection=has_projection)
    if drawn:
        networks["vae"] = vae.of_folder(folders.weights(path / "vae", where), drawn)
    return Parts(networks, reader.architecture.name, stated)


def _require_scaled_alone(vae: Config) -> None:
    """Raise ModelFileError if a VAE's latents are moved or scaled by channel, beside their one scale."""
    for key, neutral in _NO_EFFECT.items():
        value = vae.get(key)
        values = value if isinstance(value, list | tuple) else [neutral if value is None else value]
        if any(one != neutral for one in values):
            raise ModelFileError(
                f"its VAE has a {key} ({shown(value)}), which is not supported: only scaling_factor is"
            )


def _figures(path: Path, unet: Config, vae: Config | None, reader: Reader) -> Figures:
    noise = read_json(path / "scheduler" / "scheduler_config.json")
    if (betas := noise.get("beta_schedule")) != "scaled_linear" or noise.get("trained_betas") is not None:
        raise ModelFileError(f"its beta schedule is {shown(betas)}, or a list of betas; scaled_linear is supported")
    steps = noise.get("num_train_timesteps", 1000)
    sigmas = replace(figures.sigmas(noise.get("beta_start"), noise.get("beta_end"), steps), aligned=reader.aligned)
    told = noise.get("prediction_type", "epsilon")
    if not isinstance(told, str) or told not in _PREDICTIONS:
        raise ModelFileError(f"it predicts {shown(told)}; epsilon and v_prediction are supported")
    return Figures(
        sigmas.at_zero_terminal_snr() if noise.get("rescale_betas_zero_snr") is True else sigmas,
        _PREDICTIONS[told],
        figures.positive("scale factor", (vae or {}).get("scaling_factor", reader.latent_scale)),
        figures.native_size(unet.get("sample_size", 64)),
    )
