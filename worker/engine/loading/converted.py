"""A checkpoint in the form that a card computes with, on the card or on the host: one buffer of weights a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from worker.engine import transfers
from worker.engine.architectures.parts import Part, Parts
from worker.engine.devices import Device
from worker.engine.loading.flat import Layout
from worker.engine.loading.upload import chunk_bytes, pieces, upload
from worker.engine.loading.vae_format import vae_dtype

_STEP_BYTES: Final = 8 * 2**20  # of a file, after which the loader may do something else


@dataclass(frozen=True, eq=False)
class Converted:
    """The networks of one checkpoint: their layouts, and the buffers of uint8 that hold their weights."""

    parts: Parts  # whose weights are only shapes
    layouts: Mapping[str, Layout]  # by network
    buffers: Mapping[str, Tensor]
    tables: tuple[Tensor, Tensor] | None = None  # `latent_rgb` and `sample` of its `Weights`; None: not computed yet

    def views(self, network: str) -> dict[str, Tensor]:
        """Return the weights of one network."""
        return self.layouts[network].views(self.buffers[network])


def layouts_of(parts: Parts, device: Device, dtype: torch.dtype) -> dict[str, Layout]:
    """Return the layouts of the networks on `device`; a VAE has its own number format."""
    formats = {
        name: vae_dtype(part, device, dtype) if name == "vae" else dtype for name, part in parts.networks.items()
    }
    return {name: Layout.of_weights(part.weights, formats[name]) for name, part in parts.networks.items()}


def room_bytes(parts: Parts, layouts: Mapping[str, Layout]) -> int:
    """Return how much of the card's memory reading `parts` takes at most."""
    chunks = (chunk_bytes(parts.networks[name].weights) for name in layouts)
    return sum(layout.bytes for layout in layouts.values()) + max(chunks, default=0)


def read(parts: Parts, layouts: Mapping[str, Layout], device: Device) -> Converted:
    """Return the networks of `parts` that have a layout on the card, in the order of the current stream."""
    buffers = {name: uploaded(parts.networks[name], layout, device) for name, layout in layouts.items()}
    return Converted(shapes(parts), layouts, buffers)


def uploaded(part: Part, layout: Layout, device: Device) -> Tensor:
    """Return a buffer on the card with the weights of one network."""
    buffer = _on_card(layout, device)
    upload(part.weights, layout.views(buffer), device)
    return buffer


def to_device(on_host: Converted, device: Device) -> Converted:
    """Return a checkpoint of the host on the card, in the order of the current stream."""
    buffers = {name: _on_card(layout, device) for name, layout in on_host.layouts.items()}
    for name, buffer in buffers.items():
        memory = on_host.buffers[name]
        if memory.is_pinned():
            buffer.copy_(memory, non_blocking=True)
        else:
            upload({name: memory}, {name: buffer}, device)
    tables = on_host.tables and (on_host.tables[0], transfers.to_device(on_host.tables[1], device))
    return replace(on_host, buffers=buffers, tables=tables)


def converting(part: Part, layout: Layout, memory: Tensor) -> Iterator[None]:
    """Fill `memory`, on the host, with a network of a file, a few megabytes a step."""
    for piece in pieces(part.weights, layout.views(memory), _STEP_BYTES):
        piece.target.copy_(piece.source)
        yield


def shapes(parts: Parts) -> Parts:
    """Return `parts` without their weights, which would keep the file open."""
    bare: dict[str, Part] = {}
    for network, part in parts.networks.items():
        weights = {name: torch.empty(weight.shape, device="meta") for name, weight in part.weights.items()}
        bare[network] = replace(part, weights=weights)
    return replace(parts, networks=bare)


def _on_card(layout: Layout, device: Device) -> Tensor:
    return torch.empty(layout.bytes, dtype=torch.uint8, device=device.torch)
