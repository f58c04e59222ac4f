"""Checkpoints from disk, or from the host's memory, to a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar, cast

import torch
from torch import Tensor, nn

from shared.errors import ModelFileError, RenderError
from shared.prompts.tokenizer import Tokenizer
from worker.engine.architectures.parts import Part, Parts
from worker.engine.architectures.registry import ARCHITECTURES
from worker.engine.architectures.weights import Weights
from worker.engine.cuda_errors import is_fatal, is_out_of_memory
from worker.engine.devices import Device, decoder_dtype
from worker.engine.failures import no_room
from worker.engine.files import tensors
from worker.engine.images.previews import latent_rgb, sample
from worker.engine.loading import converted
from worker.engine.loading.batch_invariant import make_batch_invariant
from worker.engine.loading.converted import Converted
from worker.engine.loading.flat import Layout
from worker.engine.loading.host_cache import HostCache, Key
from worker.engine.loading.loader import Spare
from worker.engine.loading.upload import chunk_bytes
from worker.engine.row_limits import RowLimits
from worker.engine.transfers import hand_over

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.vae import DecoderTiny
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


T = TypeVar("T")
MakeRoom = Callable[[int], object]
"""Called with the bytes of the card that the load will allocate next."""
_IMPORTING: Final = Lock()  # the libraries import each other in circles: a second thread would see half of them


def prepare() -> None:
    """Import the libraries that every load needs, which takes seconds. Returns at once if that was done before."""
    with _IMPORTING:
        import_module("worker.engine.loading.networks")


def load(
    path: Path,
    device: Device,
    dtype: torch.dtype,
    make_room: MakeRoom = lambda _: None,
    on_converted: Callable[[Converted], object] = lambda _: None,
) -> Weights:
    """Return the checkpoint at `path`, a single file or a diffusers folder, resident on `device`.

    Strict: raises ModelFileError if a weight is missing, left over or misshapen, or if anything else is wrong with the
    file. Raises OutOfMemory if the card or the host has no room for it now. Nothing is downloaded or executed. `dtype`
    is the number format of U-Net and text encoder; the VAE has its own. Weights are converted from any stored format.

    On a card the work goes on the current stream, and waits for no other. `on_converted` is called with the checkpoint
    as it lies on the card, for a host cache.
    """
    return _explaining(path, partial(_load, path, device, dtype, make_room, on_converted))


def load_cached(path: Path, cached: Converted, device: Device, make_room: MakeRoom = lambda _: None) -> Weights:
    """Return the checkpoint at `path` from a host cache, resident on `device`; raises as `load`."""
    return _explaining(path, partial(_load_cached, cached, device, make_room))


def prefetch(path: Path, device: Device, dtype: torch.dtype, into: HostCache, key: Key) -> Spare:
    """Cache the checkpoint at `path` in `into`, in steps that take moments; raises as `load`."""
    parts = _explaining(path, partial(_parts, path))
    yield
    yield from into.prefetch(key, parts, converted.layouts_of(parts, device, dtype))


def load_vae(path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom = lambda _: None) -> AutoencoderKL:
    """Return the VAE in the file at `path`, resident on `device`; strict as `load`, and raises the same.

    `dtype` is that of the U-Net.
    """
    return _explaining(path, partial(_load_vae, path, device, dtype, make_room))


def load_decoder(path: Path, device: Device, dtype: torch.dtype) -> DecoderTiny:
    """Return the tiny decoder in the file at `path`, resident on `device`; strict as `load`, and raises the same."""
    return _explaining(path, partial(_load_decoder, path, device, dtype))


def _explaining(path: Path, load: Callable[[], T]) -> T:
    """Return the result of `load`; its errors are raised again for people, without references to the card's memory."""
    try:
        prepare()
        return load()
    except ModelFileError as error:
        failure: RenderError = error.with_traceback(None)
    except Exception as error:
        if is_fatal(error):
            raise
        if is_out_of_memory(error):
            failure = no_room(f"the checkpoint {path.name}")
        else:
            failure = ModelFileError(f"cannot be read: {type(error).__name__}: {error}")
    try:
        raise failure  # outside of the block: no traceback holds frames, and with them what was loaded so far
    finally:
        del failure  # so that this frame does not hold the error


def _parts(path: Path) -> Parts:
    from worker.engine.loading import layouts  # noqa: PLC0415 - diffusers and transformers take seconds

    return layouts.read(path)


def _load(
    path: Path,
    device: Device,
    dtype: torch.dtype,
    make_room: MakeRoom,
    on_converted: Callable[[Converted], object],
) -> Weights:
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    parts = _parts(path)
    built = networks.build(parts)
    layouts = converted.layouts_of(parts, device, dtype)
    if device.kind == "cpu":
        for name, part in parts.networks.items():
            networks.fill(built[name], _copied(part, layouts[name].dtype))
        make_batch_invariant(built["unet"], device.row_limits or RowLimits())
        return _weights(built, Converted(parts, layouts, {}), device)
    make_room(converted.room_bytes(parts, layouts))
    read = converted.read(parts, layouts, device)
    weights = _on_card(built, read, device)
    on_converted(replace(read, tables=(weights.latent_rgb, weights.sample)))
    return weights


def _load_cached(cached: Converted, device: Device, make_room: MakeRoom) -> Weights:
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    built = networks.build(cached.parts)
    make_room(sum(layout.bytes for layout in cached.layouts.values()))
    return _on_card(built, converted.to_device(cached, device), device)


def _on_card(built: Mapping[str, nn.Module], on_device: Converted, device: Device) -> Weights:
    """Return the checkpoint whose weights are views of the buffers on the card; the engine may use it."""
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    for name in on_device.layouts:
        networks.fill(built[name], on_device.views(name))
    weights = _weights(built, on_device, device)
    positions = [encoder.positions for encoder in weights.text_encoders]
    hand_over([*on_device.buffers.values(), weights.sample, *positions], device)
    return weights


def _weights(built: Mapping[str, nn.Module], on_device: Converted, device: Device) -> Weights:
    """Return the filled networks with the figures of the file and the tables of previews."""
    figures = on_device.parts.figures
    architecture, vae = ARCHITECTURES[on_device.parts.architecture], cast("AutoencoderKL | None", built.get("vae"))
    text_encoders = architecture.text_encoders(built)
    for encoder in text_encoders:
        encoder.number_positions(device.torch)
    if on_device.tables:
        colours, known_latent = on_device.tables
    elif vae is None:
        colours = torch.tensor(architecture.usual_rgb)
        known_latent = torch.zeros(architecture.latent.channels, 8, 8, device=device.torch)
    else:
        scale = figures.latent_scale
        colours, known_latent = latent_rgb(vae, scale), sample(vae, scale)
    return Weights(
        architecture=architecture,
        unet=cast("UNet2DConditionModel", built["unet"]),
        vae=vae,
        text_encoders=text_encoders,
        tokenizer=Tokenizer(),
        sigmas=figures.sigmas,
        prediction=figures.prediction,
        latent_scale=figures.latent_scale,
        native_size=figures.native_size,
        latent_rgb=colours,
        sample=known_latent,
        device=device,
    )


def _load_vae(path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom) -> AutoencoderKL:
    from worker.engine.loading import networks, vaes  # noqa: PLC0415 - as above

    part = vaes.part(tensors.read(path))
    vae = networks.build_vae(part)
    _fill(vae, part, decoder_dtype(device, dtype), device, make_room)
    return vae


def _load_decoder(path: Path, device: Device, dtype: torch.dtype) -> DecoderTiny:
    from worker.engine.loading import networks, taesd  # noqa: PLC0415 - as above

    part = taesd.part(tensors.read(path))
    decoder = networks.build_decoder(part)
    _fill(decoder, part, decoder_dtype(device, dtype), device, lambda _: None)
    return decoder


def _fill(network: nn.Module, part: Part, dtype: torch.dtype, device: Device, make_room: MakeRoom) -> None:
    """Fill a network that has its own file."""
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    if device.kind == "cpu":
        networks.fill(network, _copied(part, dtype))
        return
    layout = Layout.of_weights(part.weights, dtype)
    make_room(layout.bytes + chunk_bytes(part.weights))
    buffer = converted.uploaded(part, layout, device)
    networks.fill(network, layout.views(buffer))
    hand_over([buffer], device)


def _copied(part: Part, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return copies of the weights for a CPU: the file may be replaced while it is mapped.

    Convolutions are fastest with channels last, on CPUs and on cards.
    """
    orders = {4: torch.channels_last}
    return {
        name: weight.to(dtype=dtype, copy=True, memory_format=orders.get(weight.dim(), torch.contiguous_format))
        for name, weight in part.weights.items()
    }
