"""Adapters that cannot be rows' affairs are merged: a checkpoint's U-Net and text encoders with other weights.

The pristine networks stay as they are; networks that no adapter changes are shared with them, and on a CPU weights too.
Every difference is computed in float32 from the pristine weight, so the order of adapters does not matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, cast

import torch
from torch import nn

from shared.errors import ModelFileError
from worker.engine.adapters.differences import differences
from worker.engine.adapters.reading.fitting import fitted, networks_of
from worker.engine.adapters.reading.load import Deltas, MakeRoom
from worker.engine.architectures.base import CACHED_CHUNKS
from worker.engine.architectures.weights import CACHED_MASKS, Weights, network_bytes
from worker.engine.files.lora.algorithms import Layer
from worker.engine.files.lora.names import UNET
from worker.engine.tensor_cache import TensorCache
from worker.engine.transfers import hand_over

if TYPE_CHECKING:  # diffusers takes seconds to import
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

Network = TypeVar("Network", bound=nn.Module)
_FOR_ONE_CALL: Final = ("forward", "_conv_forward")
"""Attributes that adapters by rows and tiling give a module while it is called."""


class _Part(NamedTuple):
    """What one adapter changes about one layer."""

    layer: Layer
    strength: float


def merged(
    weights: Weights, parts: Sequence[tuple[Deltas, float, float]], make_room: MakeRoom = lambda _: None
) -> Weights:
    """Return `weights` with each adapter merged at its strength in the text encoders, and at that in the U-Net.

    `make_room` is called with the bytes that the changed networks take at most. The VAE, and networks without a change,
    are those of `weights`. Raises ModelFileError if an adapter does not fit.
    """
    networks = networks_of(weights)
    changes: dict[str, dict[str, list[_Part]]] = defaultdict(lambda: defaultdict(list))
    for deltas, of_texts, of_unet in parts:
        for name, layers in fitted(deltas.file, networks).items():
            strength = of_unet if name == UNET else of_texts
            for path, layer in layers.items() if strength else ():
                changes[name][path].append(_Part(layer, strength))
    make_room(sum(network_bytes(networks[name]) for name in changes))
    changed = {name: _changed(networks[name], own, weights.device.torch) for name, own in changes.items()}
    if weights.device.kind == "cuda":
        hand_over([weight for network in changed.values() for weight in network.parameters()], weights.device)
    encoders = tuple(
        replace(one, network=changed[one.name], cache=TensorCache(CACHED_CHUNKS)) if one.name in changed else one
        for one in weights.text_encoders
    )
    unet = cast("UNet2DConditionModel", changed.get(UNET, weights.unet))
    return replace(weights, unet=unet, text_encoders=encoders, masks=TensorCache(CACHED_MASKS))


@torch.no_grad()
def _changed(network: Network, changes: Mapping[str, Sequence[_Part]], device: torch.device) -> Network:
    """Return a copy of `network` with these layers changed.

    On a CPU all other weights are its own. On a card they are copies, because its own are views of one buffer, which
    each of them would keep there.
    """
    copied = _copied(network, {})
    others = (module for path, module in copied.named_modules() if path not in changes and device.type == "cuda")
    for module in others:
        for name, weight in tuple(module.named_parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(weight.clone(), requires_grad=False))
    for path, parts in changes.items():
        module = copied.get_submodule(path)
        pristine = dict(module.named_parameters(recurse=False))
        precise = {name: weight.float() for name, weight in pristine.items()}
        found = [differences(part.layer.on(device), precise, part.strength) for part in parts]
        for name, weight in pristine.items():
            total = precise[name] + sum(one[name] for one in found if name in one)
            after = torch.empty_like(weight).copy_(total)  # in the same order in memory
            if not torch.isfinite(after).all():
                form = str(weight.dtype).removeprefix("torch.")
                raise ModelFileError(f"changes {path}.{name} to numbers that {form} does not hold: lower its weight")
            module.register_parameter(name, nn.Parameter(after, requires_grad=False))
    return copied


def _copied(module: Network, done: dict[int, nn.Module]) -> Network:
    """Return a copy of a tree of modules that shares all weights, and everything else that they hold."""
    if id(module) not in done:
        copied = type(module).__new__(type(module))
        done[id(module)] = copied
        held = dict(vars(module))  # at once: meanwhile the engine's thread gives modules attributes for its calls
        vars(copied).update({name: value for name, value in held.items() if name not in _FOR_ONE_CALL})
        for name in ("_parameters", "_buffers"):
            vars(copied)[name] = dict(vars(module)[name])
        vars(copied)["_modules"] = {
            name: child if child is None else _copied(child, done) for name, child in vars(module)["_modules"].items()
        }
    return cast("Network", done[id(module)])
