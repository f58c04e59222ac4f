"""Control nets on a card, and which checkpoints they steer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from shared.errors import RenderError
from worker.engine.architectures import unet_forms
from worker.engine.architectures.weights import Weights, network_bytes
from worker.engine.devices import Device
from worker.engine.loading.batch_invariant import make_batch_invariant
from worker.engine.loading.load import MakeRoom, explained, fill_alone
from worker.engine.row_limits import RowLimits

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin


@dataclass(frozen=True, eq=False)
class ControlNet:
    """One control net, parted from the layers that embed its pictures: these are asked once for each picture."""

    name: str  # for people
    network: nn.Module  # reads a picture as `embedding` gives it
    embedding: nn.Module  # pixels [rows, 3, h, w] -> [rows, channels, h/cell, w/cell]
    is_pooled: bool  # its residuals are the same at each place: it was made for shuffled pictures

    @property
    def bytes(self) -> int:
        """The size of its weights in memory."""
        return network_bytes(self.network) + network_bytes(self.embedding)

    @property
    def types(self) -> int:
        """How many kinds of pictures a union net tells apart; 0: not a union."""
        return int(self._config.get("num_control_type", 0))

    def require_fit(self, weights: Weights) -> None:
        """Raise RenderError unless the net was trained beside a U-Net of the form of that of `weights`."""
        own, theirs = (unet_forms.form(config) for config in (self._config, weights.unet.config))
        if not any("CrossAttn" in block for block in self._config["down_block_types"]):
            own["text"] = theirs["text"]  # the smallest nets for SDXL read no text
        if own != theirs:
            form = f"{unet_forms.described(own)}; this checkpoint's has {unet_forms.described(theirs)}"
            label = weights.architecture.label
            raise RenderError(
                f"the control net {self.name} was made for a U-Net of {form}: choose one that was made for {label}"
            )

    @property
    def _config(self) -> dict[str, Any]:
        return dict(self.network.config)  # type: ignore[arg-type]  # diffusers' own


def load(path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom = lambda _: None) -> ControlNet:
    """Return the control net at `path`, a single file or a folder, resident on `device`; strict as a checkpoint's load,
    and raises the same. `dtype` is that of the U-Net.
    """
    return explained(f"the control net {path.name}", partial(_load, path, device, dtype, make_room))


def _load(path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom) -> ControlNet:
    from worker.engine.architectures.reading import control_nets  # noqa: PLC0415 - diffusers takes seconds
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    part = control_nets.read(path)
    network = networks.build_control_net(part)
    fill_alone(network, part, dtype, device, make_room)
    net = parted(path.stem, network)
    if device.kind == "cpu":
        make_batch_invariant(net.network, device.row_limits or RowLimits())
    return net


def parted(name: str, network: ModelMixin) -> ControlNet:
    """Return the control net of a filled `network` of diffusers, which is changed for it.

    Its embedding of pictures becomes a network of its own. The attention among the pictures of a union, which diffusers
    lets go across the rows of a call, stays within each row: a row alone gets the same from diffusers.
    """
    embedding = network.get_submodule("controlnet_cond_embedding")
    network.controlnet_cond_embedding = nn.Identity()
    for layer in list(network.modules()):
        if isinstance(inner := getattr(layer, "attn", None), nn.MultiheadAttention):
            layer.attn = OwnAttention(inner)
    is_pooled = bool(network.config["global_pool_conditions"])
    network.register_to_config(global_pool_conditions=False)  # the answer to a call pools them, to the size of a row
    return ControlNet(name, network, embedding, is_pooled)


class OwnAttention(nn.Module):
    """Attention of a single place to itself, which is a product with its values."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        width = attention.embed_dim
        self.value = nn.Linear(width, width, device="meta")
        self.value.weight = nn.Parameter(attention.in_proj_weight[2 * width :], requires_grad=False)
        self.value.bias = nn.Parameter(attention.in_proj_bias[2 * width :], requires_grad=False)
        self.out_proj = attention.out_proj

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: object) -> tuple[Tensor, None]:
        """Return the attention [rows, places, width] of each place of `value`, as torch's module does."""
        del query, key, options
        return self.out_proj(self.value(value)), None
