"""Hypernetworks: small networks that change what the attention of a U-Net reads, x + weight * net(x).

A file has two nets for each width of a context: one before the keys, and one before the values. Self-attention reads
the picture, whose widths are those of the U-Net's levels, and cross-attention reads the text. A net is a row of linear
layers, whose sizes are multiples of that width, with activations and layer norms between them. Dropout acts in training
alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from shared.errors import ModelFileError
from worker.engine.adapters.attentions import attentions
from worker.engine.architectures.conditioning import Applied
from worker.engine.devices import Device
from worker.engine.loading import hypernetworks as files
from worker.engine.loading.batch_invariant import product
from worker.engine.loading.hypernetworks import Activation, Net, Nets
from worker.engine.loading.load import MakeRoom
from worker.engine.loading.upload import placed
from worker.engine.transfers import to_device

UNET: Final = "unet"


@dataclass(frozen=True, eq=False)
class Hypernetwork:
    """One hypernetwork on a card."""

    sha256: str
    name: str  # for people
    architecture: str
    nets: Nets
    activation: Activation | None

    def changes(self, network: str) -> bool:
        """Return whether it changes the network of this name."""
        return network == UNET

    @cached_property
    def bytes(self) -> int:
        """The size of its weights in memory."""
        return sum(one.nbytes for one in _tensors(self.nets))

    def changed(self, place: int, x: Tensor) -> Tensor:
        """Return what its net at `place` of the pair for this width makes of contexts `x` [rows, tokens, width]."""
        for layer in self.nets[x.shape[-1]][place]:
            x = _multiplied(x, layer.weight, layer.bias)
            if layer.is_activated and self.activation:
                x = self.activation(x)
            if layer.norm:
                x = functional.layer_norm(x, x.shape[-1:], *layer.norm)
        return x


class _Group(NamedTuple):
    """Rows of a call that a hypernetwork changes together."""

    hypernetwork: Hypernetwork
    rows: Tensor  # places in the call
    weights: Tensor  # [rows, 1, 1]


def load(  # noqa: PLR0913, PLR0917 - what it reads, and where it goes
    path: Path,
    sha256: str,
    name: str,
    device: Device,
    dtype: torch.dtype,
    make_room: MakeRoom = lambda _: None,
) -> Hypernetwork:
    """Return the hypernetwork at `path`, resident on `device`. Raises ModelFileError.

    On a card the work goes on the current stream, and `make_room` is called with the bytes that it takes.
    """
    file = files.read(path)
    stored = dict(enumerate(_tensors(file.nets)))
    if not all(one.isfinite().all() for one in stored.values()):
        raise ModelFileError("holds values that are not numbers: its training failed")
    there = placed({str(number): one for number, one in stored.items()}, dtype, device, make_room)
    order = (there[str(number)] for number in stored)
    nets = {width: (_each(keys, order), _each(values, order)) for width, (keys, values) in file.nets.items()}
    return Hypernetwork(sha256, name, files.architecture(nets.keys()), nets, file.activation)


def _each(net: Net, tensors: Iterator[Tensor]) -> Net:
    """Return a net with the next of `tensors` in the places of its weights."""
    return tuple(layer.each(lambda _: next(tensors)) for layer in net)


@contextmanager
def fed(unet: nn.Module, rows: Sequence[Sequence[Applied]], device: Device) -> Iterator[None]:
    """Within the block, the attention of each row of a call reads its context as the row's hypernetworks change it.

    Several change it one after the other, in the order of the prompt. For one thread at a time: the engine's.
    """
    groups = _grouped(rows, device)
    widths = {width for group in groups for width in group.hypernetwork.nets}
    hooks = [
        layer.register_forward_pre_hook(partial(_changed, groups, place))
        for attention in (attentions(unet) if groups else ())
        for place, layer in enumerate((attention.layer.to_k, attention.layer.to_v))
        if layer.get_parameter("weight").shape[1] in widths
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _changed(groups: Sequence[_Group], place: int, _layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
    """Return the contexts [rows, tokens, width] that a layer reads, laid out in memory as those that it was given."""
    contexts = arguments[0].clone()
    for group in groups:
        if contexts.shape[-1] in group.hypernetwork.nets:
            before = contexts.index_select(0, group.rows)
            change = group.hypernetwork.changed(place, before)
            contexts.index_copy_(0, group.rows, before + group.weights.to(before.dtype) * change)
    return (contexts,)


def _grouped(rows: Sequence[Sequence[Applied]], device: Device) -> list[_Group]:
    """Return the groups of a call in the order in which they act.

    On a CPU each row is one by itself, so that its bits do not depend on its company.
    """
    found: dict[tuple[int, Hypernetwork, int], list[tuple[int, float]]] = {}
    for place, row in enumerate(rows):
        for turn, one in enumerate(row):
            if isinstance(one.adapter, Hypernetwork) and one.weight:
                key = turn, one.adapter, place if device.kind == "cpu" else 0
                found.setdefault(key, []).append((place, one.weight))
    ordered = sorted(found.items(), key=lambda item: item[0][0])
    return [_Group(adapter, *_on_device(members, device)) for (_, adapter, _), members in ordered]


def _on_device(members: Sequence[tuple[int, float]], device: Device) -> tuple[Tensor, Tensor]:
    places, weights = zip(*members, strict=True)
    return to_device(torch.tensor(places), device), to_device(torch.tensor(weights)[:, None, None], device)


def _multiplied(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return product(x, weight, bias) if x.device.type == "cpu" else functional.linear(x, weight, bias)


def _tensors(nets: Nets) -> list[Tensor]:
    return [one for pair in nets.values() for net in pair for layer in net for one in layer.tensors]
