"""Image encoders on a card: what IP-Adapters read of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from worker.engine.architectures.weights import network_bytes
from worker.engine.devices import Device
from worker.engine.loading.load import MakeRoom, explained, fill_alone
from worker.engine.transfers import hand_over

Features = Literal["projected", "hidden"]
_LAYER: Final = -2  # whose output is the hidden features: the last but one


class Reader(nn.Module):
    """An image encoder that gives one kind of features."""

    def __init__(self, encoder: nn.Module, features: Features) -> None:
        super().__init__()
        self.encoder = encoder
        self.features = features

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features [rows, places, width] of normalised pixels [rows, 3, side, side]: of one place if they
        are projected.
        """
        if self.features == "projected":
            projected: Tensor = self.encoder(pixel_values=pixels).image_embeds
            return projected[:, None]
        hidden: Tensor = self.encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[_LAYER]
        return hidden


@dataclass(frozen=True, eq=False)
class ImageEncoder:
    """One image encoder of CLIP. Each picture has a call to itself, so its features do not depend on others."""

    name: str  # for people
    network: nn.Module

    @property
    def bytes(self) -> int:
        """The size of its weights in memory."""
        return network_bytes(self.network)

    @property
    def side(self) -> int:
        """The pixels of a side of the pictures that it reads."""
        return int(self._config.image_size)

    @property
    def places(self) -> int:
        """How many parts of a picture have hidden features, and one for the whole."""
        return int((self.side // self._config.patch_size) ** 2 + 1)

    @cached_property
    def readers(self) -> dict[Features, Reader]:
        """The encoder by the features that it gives."""
        return {features: Reader(self.network, features) for features in ("projected", "hidden")}

    def width(self, features: Features) -> int:
        """Return the width of these features."""
        return int(self._config.projection_dim if features == "projected" else self._config.hidden_size)

    @property
    def _config(self) -> Any:  # noqa: ANN401 - transformers' own
        return self.network.config


def load(path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom = lambda _: None) -> ImageEncoder:
    """Return the image encoder at `path`, a single file or a folder, resident on `device`; strict as a checkpoint's
    load, and raises the same. `dtype` is that of the U-Net.
    """
    return explained(f"the image encoder {path.name}", partial(_load, path, device, dtype, make_room))


def _load(path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom) -> ImageEncoder:
    from worker.engine.architectures.reading import image_encoders  # noqa: PLC0415 - transformers takes seconds
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    part = image_encoders.read(path)
    network = networks.build_image_encoder(part)
    fill_alone(network, part, dtype, device, make_room)
    embeddings: Any = network.get_submodule("vision_model.embeddings")
    embeddings.position_ids = torch.arange(embeddings.num_positions, device=device.torch)[None]
    if device.kind == "cuda":
        hand_over([embeddings.position_ids], device)
    return ImageEncoder(path.stem, network)
