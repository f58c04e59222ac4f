"""Reads diffusers' folders, whose configurations say what a checkpoint is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Figures, Parts
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.reading import text, vae
from worker.engine.architectures.reading import unet as network
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
_OTHER_INPUTS: Final = ("class_embed_type", "num_class_embeds", "encoder_hid_dim", "encoder_hid_dim_type")
_NO_VAE: Final = "its folder vae/ is missing, which its model_index.json lists"
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
        return "sdxl" if _lists(index, "text_encoder") else "sdxl-refiner"
    words = text.described(_config(path / "text_encoder"))
    return "sd2" if words.get("hidden_act") == "gelu" else "sd1"  # OpenAI's CLIP has quick_gelu


def read(path: Path, reader: Reader, where: Where) -> Parts:
    """Return the checkpoint in the folder at `path`. Raises ModelFileError."""
    unet = _config(path / "unet")
    _require_plain(unet)
    reader.require_channels(unet.get("in_channels", reader.architecture.latent.channels))
    drawn = moderate(_config(path / "vae")) if (path / "vae").is_dir() else None
    _require_scaled_alone(drawn or {})
    words = {name: _config(path / name) for name in reader.texts}
    stated = _figures(path, unet, drawn, reader)
    networks = {"unet": network.of_folder(folders.weights(path / "unet", where), moderate(unet))}
    for name, config in words.items():
        has_projection = name == "text_encoder_2"
        networks[name] = text.of_folder(config, folders.weights(path / name, where), has_projection=has_projection)
    if drawn:
        networks["vae"] = vae.of_folder(folders.weights(path / "vae", where), drawn)
    guided = network.GUIDED if unet.get("time_cond_proj_dim") is not None else None
    lacking = None if drawn or not _lists(read_json(path / "model_index.json"), "vae") else _NO_VAE
    return Parts(networks, reader.architecture.name, stated.with_notes(guided, lacking))


def _lists(index: Config, name: str) -> bool:
    """Return whether a model_index.json lists a network: [null, null] stands for one that is left out on purpose."""
    listed = index.get(name)
    return isinstance(listed, list) and any(listed)


def _config(folder: Path, name: str = "config.json") -> Config:
    if not folder.is_dir():
        raise ModelFileError(f"its folder {folder.name}/ is missing: complete the download")
    return read_json(folder / name)


def _require_plain(unet: Config) -> None:
    """Raise ModelFileError if a U-Net needs an input that no architecture gives."""
    for name in _OTHER_INPUTS:
        if (value := unet.get(name)) is not None:
            raise ModelFileError(f"its U-Net's {name} is {shown(value)}: only U-Nets without it are supported")


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
    noise = _config(path / "scheduler", "scheduler_config.json")
    if (betas := noise.get("beta_schedule")) != "scaled_linear" or noise.get("trained_betas") is not None:
        raise ModelFileError(f"its beta schedule is {shown(betas)}, or a list of betas; scaled_linear is supported")
    steps = noise.get("num_train_timesteps", 1000)
    sigmas = replace(figures.sigmas(noise.get("beta_start"), noise.get("beta_end"), steps), aligned=reader.aligned)
    told = noise.get("prediction_type", "epsilon")
    if not isinstance(told, str) or told not in _PREDICTIONS:
        raise ModelFileError(f"it predicts {shown(told)}; epsilon and v_prediction are supported")
    prediction, cells = _PREDICTIONS[told], unet.get("sample_size")
    return Figures(
        sigmas.at_zero_terminal_snr() if noise.get("rescale_betas_zero_snr") is True else sigmas,
        prediction,
        figures.positive("scale factor", (vae or {}).get("scaling_factor", reader.latent_scale)),
        reader.expected({}, prediction).native_size if cells is None else figures.native_size(cells),
    )
