"""Hypernetworks as programs train and store them, and the plain modules that they are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {
    "relu": nn.ReLU, "leakyrelu": nn.LeakyReLU, "elu": nn.ELU, "swish": nn.Hardswish, "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid, "hardswish": nn.Hardswish, "softsign": nn.Softsign, "mish": nn.Mish, "gelu": nn.GELU,
    "rrelu": nn.RReLU,
}  # fmt: skip


class Module(nn.Module):
    """x + net(x), by the published formula: linear layers, each with its activation, norm and dropout."""

    def __init__(
        self,
        width: int,
        structure: Sequence[float] = (1, 2, 1),
        activation: str | None = None,
        *,
        activates_output: bool = True,
        is_normed: bool = False,
        dropout: Sequence[float] = (),
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place in range(len(structure) - 1):
            layers.append(nn.Linear(int(width * structure[place]), int(width * structure[place + 1])))
            is_last = place == len(structure) - 2
            if activation in ACTIVATIONS and (activates_output or not is_last):
                layers.append(ACTIVATIONS[activation]())
            if is_normed:
                layers.append(nn.LayerNorm(int(width * structure[place + 1])))
            if dropout and dropout[place + 1] > 0:
                layers.append(nn.Dropout(dropout[place + 1]))
        self.linear = nn.Sequential(*layers)
        self.eval()

    def forward(self, x: Tensor, weight: float = 1.0) -> Tensor:
        found: Tensor = x + weight * self.linear(x)
        return found


Pairs = dict[int, tuple[Module, Module]]


def drawn(
    seed: int, widths: Sequence[int], structure: Sequence[float] = (1, 2, 1), activation: str | None = None, **how: Any
) -> Pairs:
    """Return modules of every width, whose nets change their contexts by about a third."""
    make = partial(Module, structure=structure, activation=activation, **how)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        pairs = {width: (make(width), make(width)) for width in widths}
        for weight in (one for pair in pairs.values() for module in pair for one in module.parameters()):
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape) * 0.3 / weight.shape[-1] ** 0.5)
            else:
                weight.add_(0.1 * torch.randn(weight.shape))
    return pairs


def content(
    pairs: Pairs, structure: Sequence[float] = (1, 2, 1), activation: str | None = None, **more: object
) -> dict[Any, Any]:
    """Return what a file of `pairs` holds."""
    nets = {width: tuple(dict(one.state_dict()) for one in pair) for width, pair in pairs.items()}
    about = {"step": 500, "name": "haze", "sd_checkpoint": "81761151", "optional_info": None, "use_dropout": False}
    layers = {"layer_structure": list(structure), "activation_func": activation, "is_layer_norm": False}
    return {**nets, **about, **layers, "activate_output": True, **more}
