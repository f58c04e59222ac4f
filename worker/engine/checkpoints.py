"""Checkpoints from disk to a card."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar

import torch
from torch import Tensor

from shared.errors import ModelFileError, OutOfMemory, RenderError
from shared.tokens import Tokenizer
from worker.engine.devices import Device, decoder_dtype, is_fatal, is_out_of_memory
from worker.engine.previews import USUAL_RGB, latent_rgb, sample
from worker.engine.steady import steady
from worker.engine.weights import Weights

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.vae import DecoderTiny

T = TypeVar("T")
_IMPORTING: Final = Lock()  # of libraries that import one another in circles: two threads at it see half of them


def prepare() -> None:
    """Import what every load needs, which takes seconds. Returns at once where that was done."""
    with _IMPORTING:
        import_module("worker.engine.networks")


def load(path: Path, device: Device, dtype: torch.dtype) -> Weights:
    """Return the checkpoint at `path`, a single file or a diffusers folder, resident on `device`.

    Strict: what is missing, left over or misshapen raises ModelFileError, as does anything else that is wrong with the
    file. Raises OutOfMemory where the card or the host has no room for it now. Nothing is fetched, nothing executed.
    `dtype` is the U-Net's and the text encoder's; the VAE has its own. Whatever the file stores, weights are converted.
    """
    return _explaining(path, partial(_load, path, device, dtype))


def load_vae(path: Path, device: Device, dtype: torch.dtype) -> AutoencoderKL:
    """Return the VAE in the file at `path`, resident on `device`; strict, and raising, as `load`.

    `dtype` is that of the U-Net beside it.
    """
    return _explaining(path, partial(_load_vae, path, device, dtype))


def load_decoder(path: Path, device: Device, dtype: torch.dtype) -> DecoderTiny:
    """Return the tiny decoder in the file at `path`, resident on `device`; strict, and raising, as `load`."""
    return _explaining(path, partial(_load_decoder, path, device, dtype))


def _explaining(path: Path, load: Callable[[], T]) -> T:
    """What `load` returns; what goes wrong as an error that people understand."""
    try:
        prepare()
        return load()
    except ModelFileError:
        raise
    except Exception as error:
        if is_fatal(error):
            raise
        failure = _explained(path, error)  # outside of this block nothing holds what was loaded so far
    raise failure


def _load(path: Path, device: Device, dtype: torch.dtype) -> Weights:
    from worker.engine import layouts, networks  # noqa: PLC0415 - diffusers and transformers take seconds

    parts = layouts.read(path)
    built = networks.build(parts)
    networks.fill(built.unet, parts.unet, partial(_placed, device, dtype))
    if device.kind == "cpu":
        steady(built.unet)
    if built.vae and parts.vae:
        networks.fill(built.vae, parts.vae, partial(_placed, device, decoder_dtype(device, dtype)))
    networks.fill(built.text_encoder, parts.text_encoder, partial(_placed, device, dtype))
    _number_positions(built.text_encoder, device)
    return Weights(
        unet=built.unet,
        vae=built.vae,
        text_encoder=built.text_encoder,
        tokenizer=Tokenizer(),
        sigmas=parts.figures.sigmas,
        predicts_velocity=parts.figures.predicts_velocity,
        latent_scale=parts.figures.latent_scale,
        native_size=parts.figures.native_size,
        latent_rgb=latent_rgb(built.vae, parts.figures.latent_scale) if built.vae else USUAL_RGB,
        sample=sample(built.vae, parts.figures.latent_scale) if built.vae else torch.zeros(4, 8, 8),
        device=device,
    )


def _load_vae(path: Path, device: Device, dtype: torch.dtype) -> AutoencoderKL:
    from worker.engine import networks, tensors, vaes  # noqa: PLC0415 - as above

    part = vaes.part(tensors.read(path))
    vae = networks.build_vae(part)
    networks.fill(vae, part, partial(_placed, device, decoder_dtype(device, dtype)))
    return vae


def _load_decoder(path: Path, device: Device, dtype: torch.dtype) -> DecoderTiny:
    from worker.engine import networks, tensors, tiny  # noqa: PLC0415 - as above

    part = tiny.part(tensors.read(path))
    decoder = networks.build_decoder(part)
    networks.fill(decoder, part, partial(_placed, device, decoder_dtype(device, dtype)))
    return decoder


def _explained(path: Path, error: Exception) -> RenderError:
    if is_out_of_memory(error):
        return OutOfMemory(f"there is not enough memory for the checkpoint {path.name}")
    return ModelFileError(f"cannot be read: {type(error).__name__}: {error}")


def _placed(device: Device, dtype: torch.dtype, weight: Tensor) -> Tensor:
    """`weight` as the card keeps it, always a copy: the file may be replaced while it is mapped.

    Channels last is how convolutions are fastest, on cards and on CPUs.
    """
    layout = torch.channels_last if weight.dim() == 4 else torch.contiguous_format
    return weight.to(device.torch, dtype, copy=True, memory_format=layout)


def _number_positions(text_encoder: torch.nn.Module, device: Device) -> None:
    """Make the table of positions, which no checkpoint stores, real."""
    embeddings = text_encoder.get_submodule("embeddings")
    positions = embeddings.get_buffer("position_ids").shape[-1]
    embeddings.position_ids = torch.arange(positions, device=device.torch)[None]
