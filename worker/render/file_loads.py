"""How a file of each kind is loaded onto a card: a row a kind. Only a checkpoint's load needs more than its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import torch

from shared.models.kinds import Kind
from worker.engine.adapters import control_nets, hypernetworks, ip_adapters
from worker.engine.adapters.reading import load as lora
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loading import embeddings, image_encoders, load
from worker.engine.loading.load import MakeRoom
from worker.engine.loading.sharing import Sharing
from worker.engine.upscaling import files
from worker.render.local_models import Found


class Sized(Protocol):
    """A loaded file that knows the memory it takes."""

    @property
    def bytes(self) -> int:
        """The size of its weights in memory."""


if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    Loaded = Weights | AutoencoderKL | Sized


@dataclass(frozen=True)
class Source:
    """A file, and the card that it is loaded onto."""

    found: Found
    device: Device
    dtype: torch.dtype  # of the U-Net
    make_room: MakeRoom
    sharing: Sharing  # what the load may take over; only whole networks are shared
    base: Callable[[], Weights]  # returns the checkpoint that an adapter is read for


FILE_LOADS: Final[Mapping[Kind, Callable[[Source], Loaded]]] = {
    "controlnet": lambda one: control_nets.load(one.found.path, one.device, one.dtype, one.make_room),
    "ip-adapter": lambda one: ip_adapters.load(one.found.path, one.device, one.dtype, one.make_room),
    "image-encoder": lambda one: image_encoders.load(one.found.path, one.device, one.dtype, one.make_room),
    "vae": lambda one: load.load_vae(one.found.path, one.device, one.dtype, one.make_room, one.sharing),
    "upscaler": lambda one: files.load(one.found.path, one.device, one.dtype, one.make_room),
    "face-restorer": lambda one: files.load(one.found.path, one.device, one.dtype, one.make_room),
    "embedding": lambda one: embeddings.load(one.found.path, one.found.sha256, one.device, one.dtype),
    "hypernetwork": lambda one: hypernetworks.load(
        one.found.path, one.found.sha256, one.found.name, one.device, one.dtype, one.make_room
    ),
    "lora": lambda one: lora.load(one.found.path, one.found.sha256, one.base(), one.make_room),
}
