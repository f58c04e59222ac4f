"""Random low-rank adapters for a checkpoint at hand, and the same checkpoint with adapters merged by hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tests.support.conditioned import with_empty_caches
from worker.engine.adapters.low_rank import Factors, LowRank
from worker.engine.architectures.weights import Weights

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "v_proj", "fc1")


def drawn(
    weights: Weights, seed: int, rank: int = 4, *, layers: Sequence[str] | None = ATTENTION, texts: bool = True
) -> LowRank:
    """Return an adapter drawn from `seed` for layers whose path ends in one of `layers`; None: for all layers."""
    draw = torch.Generator().manual_seed(seed)
    networks = {"unet": weights.unet, **({one.name: one.network for one in weights.text_encoders} if texts else {})}
    found = {
        name: {path: _factors(layer, rank, draw) for path, layer in _layers(network, layers)}
        for name, network in networks.items()
    }
    about = {"sha256": f"{seed:064x}", "name": f"drawn {seed}", "architecture": weights.architecture.name}
    return LowRank.on(weights.device, weights.dtype, found, **about)


def _layers(network: nn.Module, ends: Sequence[str] | None) -> Iterator[tuple[str, nn.Module]]:
    for path, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and (ends is None or path.endswith(tuple(ends))):
            yield path, layer


def _factors(layer: nn.Module, rank: int, draw: torch.Generator) -> Factors:
    """Return factors whose product is about a fifth of the layer."""
    weight: Tensor = layer.get_parameter("weight")
    down = torch.randn(rank, *weight.shape[1:], generator=draw) / weight[0].numel() ** 0.5
    up = torch.randn(len(weight), rank, generator=draw) / rank**0.5
    return Factors.of(down, up, 0.2)


def merged(weights: Weights, adapters: Sequence[tuple[LowRank, float, float]]) -> Weights:
    """Return copies of the networks with each adapter added at its weight in the text encoders, and in the U-Net."""
    unet = copy.deepcopy(weights.unet)
    texts = [replace(one, network=copy.deepcopy(one.network)) for one in with_empty_caches(weights).text_encoders]
    for adapter, text_weight, unet_weight in adapters:
        _add(unet, adapter, "unet", unet_weight)
        for encoder in texts:
            _add(encoder.network, adapter, encoder.name, text_weight)
    return replace(weights, unet=unet, text_encoders=tuple(texts))


def _add(network: nn.Module, adapter: LowRank, name: str, weight: float) -> None:
    for path, (down, up) in adapter.networks.get(name, {}).items():
        layer = network.get_submodule(path).get_parameter("weight")
        layer.data += weight * (up @ down.flatten(1)).view(layer.shape)
