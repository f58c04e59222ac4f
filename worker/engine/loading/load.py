"""Checkpoints from disk, or from the host's memory, to a card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar

import torch
from torch import Tensor, nn

from shared.errors import ModelFileError, RenderError
from shared.prompts.tokenizer import Tokenizer
from worker.engine.cuda_errors import is_fatal, is_out_of_memory
from worker.engine.devices import Device, decoder_dtype
from worker.engine.failures import no_room
from worker.engine.images.previews import USUAL_RGB, latent_rgb, sample
from worker.engine.loading import converted
from worker.engine.loading.batch_invariant import steady
from worker.engine.loading.converted import Converted
from worker.engine.loading.flat import Layout
from worker.engine.loading.host_cache import HostCache, Key
from worker.engine.loading.loader import Spare
from worker.engine.loading.upload import chunk_bytes
from worker.engine.row_limits import RowLimits
from worker.engine.transfers import hand_over
from worker.engine.weights import Weights

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.vae import DecoderTiny

    from worker.engine.loading.layouts import Part, Parts
    from worker.engine.loading.networks import Networks

T = TypeVar("T")
MakeRoom = Callable[[int], object]
"""Called with the bytes of the card that the load needs next."""
_IMPORTING: Final = (
    Lock()
)  # of libraries that import one another in circles: two threads at once would see half of them


def prepare() -> None:
    """Import what every load needs, which takes seconds. Returns at once where that was done."""
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

    Strict: what is missing, left over or misshapen raises ModelFileError, as does anything else that is wrong with the
    file. Raises OutOfMemory where the card or the host has no room for it now. Nothing is fetched, nothing executed.
    `dtype` is the U-Net's and the text encoder's; the VAE has its own. Whatever the file stores, weights are converted.

    On a card the work goes on the current stream, and nothing but that is waited for. `on_converted` is given what lies
    there then: what a host cache can keep.
    """
    return _explaining(path, partial(_load, path, device, dtype, make_room, on_converted))


def load_kept(path: Path, kept: Converted, device: Device, make_room: MakeRoom = lambda _: None) -> Weights:
    """Return the checkpoint at `path` as a host cache has kept it, resident on `device`; raising as `load`."""
    return _explaining(path, partial(_load_kept, kept, device, make_room))


def prefetch(path: Path, device: Device, dtype: torch.dtype, into: HostCache, key: Key) -> Spare:
    """Have `into` keep the checkpoint at `path`, in steps that take moments; raising as `load`."""
    parts = _explaining(path, partial(_parts, path))
    yield
    yield from into.prefetch(key, parts, converted.layouts_of(parts, device, dtype))


def load_vae(path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom = lambda _: None) -> AutoencoderKL:
    """Return the VAE in the file at `path`, resident on `device`; strict, and raising, as `load`.

    `dtype` is that of the U-Net beside it.
    """
    return _explaining(path, partial(_load_vae, path, device, dtype, make_room))


def load_decoder(path: Path, device: Device, dtype: torch.dtype) -> DecoderTiny:
    """Return the tiny decoder in the file at `path`, resident on `device`; strict, and raising, as `load`."""
    return _explaining(path, partial(_load_decoder, path, device, dtype))


def _explaining(path: Path, load: Callable[[], T]) -> T:
    """What `load` returns; what goes wrong as an error that people understand, and that holds nothing of the card."""
    try:
        prepare()
        return load()
    except ModelFileError as error:
        failure: RenderError = error.with_traceback(None)
    except Exception as error:
        if is_fatal(error):
            raise
        failure = _explained(path, error)
    try:
        raise failure  # outside of the block: no traceback's frames hold what was loaded so far
    finally:
        del failure  # nor does one of them hold the error itself


def _explained(path: Path, error: Exception) -> RenderError:
    if is_out_of_memory(error):
        return no_room(f"the checkpoint {path.name}")
    return ModelFileError(f"cannot be read: {type(error).__name__}: {error}")


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
        for name, part in converted.named(parts).items():
            networks.fill(getattr(built, name), _copied(part, layouts[name].dtype))
        steady(built.unet, device.row_limits or RowLimits())
        return _weights(built, Converted(parts, layouts, {}), device)
    make_room(converted.room_bytes(parts, layouts))
    read = converted.read(parts, layouts, device)
    weights = _on_card(built, read, device)
    on_converted(replace(read, tables=(weights.latent_rgb, weights.sample)))
    return weights


def _load_kept(kept: Converted, device: Device, make_room: MakeRoom) -> Weights:
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    built = networks.build(kept.parts)
    make_room(sum(layout.bytes for layout in kept.layouts.values()))
    return _on_card(built, converted.sent(kept, device), device)


def _on_card(built: Networks, held: Converted, device: Device) -> Weights:
    """The checkpoint whose weights are views of the buffers that `held` has on the card; the engine may use it."""
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    for name in held.layouts:
        networks.fill(getattr(built, name), held.views(name))
    weights = _weights(built, held, device)
    positions = weights.text_encoder.get_submodule("embeddings").get_buffer("position_ids")
    hand_over([*held.buffers.values(), weights.sample, positions], device)
    return weights


def _weights(built: Networks, held: Converted, device: Device) -> Weights:
    """The filled networks, with what the file states and what previews need to know."""
    figures = held.parts.figures
    _number_positions(built.text_encoder, device)
    colours, known = held.tables or _tables(built.vae, figures.latent_scale, device)
    return Weights(
        unet=built.unet,
        vae=built.vae,
        text_encoder=built.text_encoder,
        tokenizer=Tokenizer(),
        sigmas=figures.sigmas,
        predicts_velocity=figures.predicts_velocity,
        latent_scale=figures.latent_scale,
        native_size=figures.native_size,
        latent_rgb=colours,
        sample=known,
        device=device,
    )


def _tables(vae: AutoencoderKL | None, latent_scale: float, device: Device) -> tuple[Tensor, Tensor]:
    if vae is None:
        return USUAL_RGB, torch.zeros(4, 8, 8, device=device.torch)
    return latent_rgb(vae, latent_scale), sample(vae, latent_scale)


def _load_vae(path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom) -> AutoencoderKL:
    from worker.engine.loading import networks, tensors, vaes  # noqa: PLC0415 - as above

    part = vaes.part(tensors.read(path))
    vae = networks.build_vae(part)
    _fill(vae, part, decoder_dtype(device, dtype), device, make_room)
    return vae


def _load_decoder(path: Path, device: Device, dtype: torch.dtype) -> DecoderTiny:
    from worker.engine.loading import networks, taesd, tensors  # noqa: PLC0415 - as above

    part = taesd.part(tensors.read(path))
    decoder = networks.build_decoder(part)
    _fill(decoder, part, decoder_dtype(device, dtype), device, lambda _: None)
    return decoder


def _fill(network: nn.Module, part: Part, dtype: torch.dtype, device: Device, make_room: MakeRoom) -> None:
    """Fill a network that has a file to itself."""
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    if device.kind == "cpu":
        networks.fill(network, _copied(part, dtype))
        return
    layout = Layout.of(part.weights, dtype)
    make_room(layout.bytes + chunk_bytes(part.weights))
    buffer = converted.uploaded(part, layout, device)
    networks.fill(network, layout.views(buffer))
    hand_over([buffer], device)


def _copied(part: Part, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights as a CPU keeps them, always copies: the file may be replaced while it is mapped.

    Channels last is how convolutions are fastest, on CPUs and on cards.
    """
    copies = {}
    for name, weight in part.weights.items():
        layout = torch.channels_last if weight.dim() == 4 else torch.contiguous_format
        copies[name] = weight.to(dtype=dtype, copy=True, memory_format=layout)
    return copies


def _number_positions(text_encoder: nn.Module, device: Device) -> None:
    """Make the table of positions, which no checkpoint stores, real."""
    embeddings = text_encoder.get_submodule("embeddings")
    positions = embeddings.get_buffer("position_ids").shape[-1]
    embeddings.position_ids = torch.arange(positions, device=device.torch)[None]
