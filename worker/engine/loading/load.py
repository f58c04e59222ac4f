"""Checkpoints from disk, or from the host's memory, to a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar, cast

import structlog
import torch
from torch import Tensor, nn

from shared.errors import ModelFileError, RenderError
from shared.prompts.tokenizer import Tokenizer
from worker.engine.architectures.base import Architecture
from worker.engine.architectures.parts import Figures, Part, Parts
from worker.engine.architectures.registry import ARCHITECTURES
from worker.engine.architectures.weights import Weights
from worker.engine.cuda_errors import is_fatal, is_out_of_memory
from worker.engine.devices import Device, decoder_dtype
from worker.engine.failures import no_room
from worker.engine.files import tensors
from worker.engine.images.previews import latent_rgb, sample
from worker.engine.loading import converted, trial
from worker.engine.loading.batch_invariant import make_batch_invariant
from worker.engine.loading.converted import Converted
from worker.engine.loading.flat import Layout
from worker.engine.loading.host_cache import HostCache, Key
from worker.engine.loading.loader import Spare
from worker.engine.loading.sharing import ALONE, Resident, Sharing
from worker.engine.loading.upload import chunk_bytes
from worker.engine.loading.vae_format import vae_dtype
from worker.engine.row_limits import RowLimits
from worker.engine.transfers import hand_over

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.vae import DecoderTiny
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

log = structlog.get_logger(__name__)

T = TypeVar("T")
MakeRoom = Callable[[int], object]
"""Called with the bytes of the card that the load will allocate next."""
_IMPORTING: Final = Lock()  # the libraries import each other in circles: a second thread would see half of them


def prepare() -> None:
    """Import the libraries that every load needs, which takes seconds. Returns at once if that was done before."""
    with _IMPORTING:
        import_module("worker.engine.loading.networks")


def load(  # noqa: PLR0913, PLR0917 - what it reads, and what it reports
    path: Path,
    device: Device,
    dtype: torch.dtype,
    make_room: MakeRoom = lambda _: None,
    on_converted: Callable[[Converted], object] = lambda _: None,
    sharing: Sharing = ALONE,
) -> Weights:
    """Return the checkpoint at `path`, a single file or a diffusers folder, resident on `device`.

    Strict: raises ModelFileError if a weight is missing, left over or misshapen, or if anything else is wrong with the
    file. Raises OutOfMemory if the card or the host has no room for it now. Nothing is downloaded or executed. `dtype`
    is the number format of U-Net and text encoder; the VAE has its own. Weights are converted from any stored format.
    If the file does not say what the U-Net predicts, one small call of it shows that.

    On a card the work goes on the current stream, and waits for no other. `on_converted` is called with the checkpoint
    as it lies on the card, for a host cache. Networks that `sharing` has are taken over instead of being read.
    """
    return explained(
        f"the checkpoint {path.name}", partial(_load, path, device, dtype, make_room, on_converted, sharing)
    )


def load_cached(
    path: Path, cached: Converted, device: Device, make_room: MakeRoom = lambda _: None, sharing: Sharing = ALONE
) -> Weights:
    """Return the checkpoint at `path` from a host cache, resident on `device`; raises as `load`."""
    return explained(f"the checkpoint {path.name}", partial(_load_cached, cached, device, make_room, sharing))


def prefetch(path: Path, device: Device, dtype: torch.dtype, into: HostCache, key: Key) -> Spare:
    """Cache the checkpoint at `path` in `into`, in steps that take moments; raises as `load`."""
    parts = explained(f"the checkpoint {path.name}", partial(_parts, path))
    yield
    yield from into.prefetch(key, parts, converted.layouts_of(parts, device, dtype))


def load_vae(
    path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom = lambda _: None, sharing: Sharing = ALONE
) -> AutoencoderKL:
    """Return the VAE in the file at `path`, resident on `device`; strict as `load`, and raises the same.

    `dtype` is that of the U-Net.
    """
    return explained(f"the VAE {path.name}", partial(_load_vae, path, device, dtype, make_room, sharing))


def load_decoder(path: Path, device: Device, dtype: torch.dtype) -> DecoderTiny:
    """Return the tiny decoder in the file at `path`, resident on `device`; strict as `load`, and raises the same."""
    return explained(f"the tiny decoder {path.name}", partial(_load_decoder, path, device, dtype))


def explained(what: str, load: Callable[[], T]) -> T:
    """Return the result of the load of `what`; its errors are raised again for people, without references to the
    card's memory.
    """
    try:
        prepare()
        return load()
    except RenderError as error:
        failure = error.with_traceback(None)
    except Exception as error:
        if is_fatal(error):
            raise
        if is_out_of_memory(error):
            failure = no_room(what)
        else:
            failure = ModelFileError(f"cannot be read: {type(error).__name__}: {error}")
    try:
        raise failure  # outside of the block: no traceback holds frames, and with them what was loaded so far
    finally:
        del failure  # so that this frame does not hold the error


def _parts(path: Path) -> Parts:
    from worker.engine.loading import layouts  # noqa: PLC0415 - diffusers and transformers take seconds

    return layouts.read(path)


def _load(  # noqa: PLR0913, PLR0917 - as `load`
    path: Path,
    device: Device,
    dtype: torch.dtype,
    make_room: MakeRoom,
    on_converted: Callable[[Converted], object],
    sharing: Sharing,
) -> Weights:
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    parts = _parts(path)
    built = networks.build(parts)
    layouts = converted.layouts_of(parts, device, dtype)
    shared = sharing.fitting(layouts, parts.figures)
    own = {name: layout for name, layout in layouts.items() if name not in shared}
    if device.kind == "cpu":
        for name, layout in own.items():
            networks.fill(built[name], _copied(parts.networks[name], layout.dtype))
        if "unet" in own:
            make_batch_invariant(built["unet"], device.row_limits or RowLimits())
        return _weights(built, Converted(parts, layouts, {}), device, sharing, shared)
    make_room(converted.room_bytes(parts, own))
    read = converted.read(parts, own, device)
    weights = _on_card(built, read, device, sharing, shared)
    buffers = {name: resident.buffer for name, resident in shared.items() if resident.buffer is not None}
    known = replace(read.parts, figures=parts.figures.predicting(weights.prediction))
    tables = weights.latent_rgb, weights.sample
    on_converted(Converted(known, layouts, {**read.buffers, **buffers}, tables))
    return weights


def _load_cached(cached: Converted, device: Device, make_room: MakeRoom, sharing: Sharing) -> Weights:
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    built = networks.build(cached.parts)
    shared = sharing.fitting(cached.layouts, cached.parts.figures)
    own = {name: layout for name, layout in cached.layouts.items() if name not in shared}
    make_room(sum(layout.bytes for layout in own.values()))
    on_device = converted.to_device(replace(cached, layouts=own), device)
    return _on_card(built, on_device, device, sharing, shared)


def _on_card(
    built: dict[str, nn.Module], on_device: Converted, device: Device, sharing: Sharing, shared: Mapping[str, Resident]
) -> Weights:
    """Return the checkpoint whose own weights are views of the buffers on the card; the engine may use it."""
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    for name in on_device.layouts:
        networks.fill(built[name], on_device.views(name))
    weights = _weights(built, on_device, device, sharing, shared)
    positions = [encoder.positions for encoder in weights.text_encoders]
    hand_over([*on_device.buffers.values(), weights.sample, *positions], device)
    return weights


def _weights(
    built: dict[str, nn.Module], own: Converted, device: Device, sharing: Sharing, shared: Mapping[str, Resident]
) -> Weights:
    """Return the filled networks with the figures of the file and the tables of previews."""
    architecture = ARCHITECTURES[own.parts.architecture]
    for encoder in architecture.text_encoders(built):
        encoder.number_positions(device.torch)
    built.update({name: resident.network for name, resident in shared.items()})
    found = {name: Resident(network, own.buffers.get(name)) for name, network in built.items()} | dict(shared)
    found["unet"], figures = _measured(found["unet"], own.parts.figures, architecture, device)
    vae, scale = cast("AutoencoderKL | None", built.get("vae")), figures.latent_scale
    if own.tables:
        tables = own.tables
    elif "vae" in shared:
        tables = shared["vae"].tables[scale]
    elif vae is None:
        empty = torch.zeros(architecture.latent.channels, 8, 8, device=device.torch)
        tables = torch.tensor(architecture.usual_rgb), empty
    else:
        tables = latent_rgb(vae, scale), sample(vae, scale)
    if "vae" in found:
        found["vae"] = replace(found["vae"], tables={**found["vae"].tables, scale: tables})
    sharing.on_loaded(found)
    return Weights(
        architecture=architecture,
        unet=cast("UNet2DConditionModel", built["unet"]),
        vae=vae,
        text_encoders=architecture.text_encoders(built),
        tokenizer=Tokenizer(),
        sigmas=figures.sigmas,
        prediction=figures.prediction,
        latent_scale=scale,
        native_size=figures.native_size,
        latent_rgb=tables[0],
        sample=tables[1],
        device=device,
    )


def _measured(unet: Resident, figures: Figures, architecture: Architecture, device: Device) -> tuple[Resident, Figures]:
    """Return both with the prediction that the U-Net shows, unless the file states it."""
    if figures.if_noise is None:
        return unet, figures
    network = cast("UNet2DConditionModel", unet.network)
    prediction = unet.prediction or trial.prediction(network, architecture, figures.sigmas, device)
    if prediction is not figures.prediction:
        log.info("prediction measured", prediction=prediction.value, assumed=figures.prediction.value)
    return replace(unet, prediction=prediction), figures.predicting(prediction)


def _load_vae(path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom, sharing: Sharing) -> AutoencoderKL:
    from worker.engine.loading import layouts, networks, vaes  # noqa: PLC0415 - as above

    part = vaes.part(tensors.read(path))
    dtype = vae_dtype(part, device, dtype)
    vae = networks.build_vae(part)
    resident = sharing.residents.get("vae")
    if not resident or next(resident.network.parameters()).dtype != dtype:
        buffer = fill_alone(vae, part, dtype, device, make_room)
        # For checkpoints that come later and hold the same one: tables are computed before the engine may call it.
        scales = {reader.latent_scale for reader in layouts.READERS}
        resident = Resident(vae, buffer, {scale: (latent_rgb(vae, scale), sample(vae, scale)) for scale in scales})
    sharing.on_loaded({"vae": resident})
    return cast("AutoencoderKL", resident.network)


def _load_decoder(path: Path, device: Device, dtype: torch.dtype) -> DecoderTiny:
    from worker.engine.loading import networks, taesd  # noqa: PLC0415 - as above

    part = taesd.part(tensors.read(path))
    decoder = networks.build_decoder(part)
    fill_alone(decoder, part, decoder_dtype(device, dtype), device, lambda _: None)
    return decoder


def fill_alone(
    network: nn.Module, part: Part, dtype: torch.dtype, device: Device, make_room: MakeRoom
) -> Tensor | None:
    """Fill a network that has its own file, and return the buffer of its weights on a card."""
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    if device.kind == "cpu":
        networks.fill(network, _copied(part, dtype))
        return None
    layout = Layout.of_weights(part.weights, dtype)
    make_room(layout.bytes + chunk_bytes(part.weights))
    buffer = converted.uploaded(part, layout, device)
    networks.fill(network, layout.views(buffer))
    hand_over([buffer], device)
    return buffer


def _copied(part: Part, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return copies of the weights for a CPU: the file may be replaced while it is mapped.

    Convolutions are fastest with channels last, on CPUs and on cards.
    """
    orders = {4: torch.channels_last}
    return {
        name: weight.to(dtype=dtype, copy=True, memory_format=orders.get(weight.dim(), torch.contiguous_format))
        for name, weight in part.weights.items()
    }
