"""The files of hypernetworks, read strictly: what they state about their nets, and the weights that then must be there.

{width: [weights before the keys, weights before the values]}, and beside it by name: `layer_structure` (the sizes of a
net's layers as multiples of the width), `activation_func`, `activate_output` (whether the last layer is activated too),
`is_layer_norm`. A net's weights are numbered by their places in a row that also counts activations and dropout.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from shared.errors import ModelFileError
from worker.engine.architectures.registry import ARCHITECTURES
from worker.engine.files import config_bounds, number_formats, tensors

Activation = Callable[[Tensor], Tensor]

_ACTIVATIONS: Final[dict[str, Activation]] = {
    "relu": functional.relu, "relu6": functional.relu6, "rrelu": functional.rrelu,
    "leakyrelu": functional.leaky_relu, "elu": functional.elu,
    "celu": functional.celu, "selu": functional.selu, "gelu": functional.gelu, "silu": functional.silu,
    "mish": functional.mish, "hardswish": functional.hardswish, "hardtanh": functional.hardtanh,
    "hardsigmoid": functional.hardsigmoid, "hardshrink": functional.hardshrink, "softshrink": functional.softshrink,
    "softplus": functional.softplus, "softsign": functional.softsign, "tanhshrink": functional.tanhshrink,
    "logsigmoid": functional.logsigmoid, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    "swish": functional.hardswish,  # what the programs mean by it that train hypernetworks
}  # fmt: skip
_IDENTITY: Final = "linear"
_USUAL_STRUCTURE: Final = (1, 2, 1)
_MOST_LAYERS: Final = 16
_MOST_WIDTHS: Final = 32
_WIDEST: Final = 2**15  # of a layer
_WEIGHT: Final = re.compile(r"([1-9]\d{0,4})\.(\d)\.(?:linear\.(\d{1,3})|linear([12]))\.(weight|bias)")
_USUAL_ARCHITECTURE: Final = "sd1"  # of a file whose widths are not those of a known text


class Layer(NamedTuple):
    """One layer of a net: a matrix product, an activation, and a norm."""

    weight: Tensor  # [out, in]
    bias: Tensor  # [out]
    is_activated: bool = False
    norm: tuple[Tensor, Tensor] | None = None  # weight and bias [out]; None: there is none

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All its weights."""
        return (self.weight, self.bias, *(self.norm or ()))

    def each(self, change: Callable[[Tensor], Tensor]) -> Layer:
        """Return the same with `change` made to its weights, in the order of `tensors`."""
        weight, bias, *norm = map(change, self.tensors)
        return Layer(weight, bias, self.is_activated, (norm[0], norm[1]) if norm else None)


Net = tuple[Layer, ...]
Nets = Mapping[int, tuple[Net, Net]]
"""By the width of a context: the nets before its keys, and before its values."""


class File(NamedTuple):
    """What a file holds."""

    nets: Nets
    activation: Activation | None  # of all layers that are activated


class _Stated(NamedTuple):
    """What a file states about all its nets."""

    structure: tuple[float, ...]  # sizes before and after each layer, as multiples of the width
    activation: str | None
    activates_output: bool
    is_normed: bool

    def is_activated(self, layer: int) -> bool:
        """Return whether the output of this layer, counted from 0, is activated."""
        return self.activation is not None and (layer < len(self.structure) - 2 or self.activates_output)


def read(path: Path, where: tensors.Where = "cpu") -> File:
    """Return what the file of a hypernetwork holds. Raises ModelFileError that says what is wrong with it."""
    return of_weights(tensors.read(path, where), tensors.values(path))


def holds_one(weights: Mapping[str, Tensor]) -> bool:
    """Return whether these are the weights of a hypernetwork."""
    return any(_WEIGHT.fullmatch(name) for name in weights)


def of_weights(weights: Mapping[str, Tensor], values: Mapping[str, object]) -> File:
    """Return what the weights of a hypernetwork are, by the values that stand beside them. Raises ModelFileError."""
    if not holds_one(weights):
        raise ModelFileError("is not a hypernetwork: it holds no nets by the width that they read")
    stated, numbered = _stated(values), _numbered(weights)
    nets: dict[int, tuple[Net, Net]] = {}
    for width, of_width in sorted(numbered.items()):
        if of_width.keys() != {0, 1}:
            raise ModelFileError(
                f"has {len(of_width)} nets for width {width}; one for keys and one for values are right"
            )
        keys, values_net = (_net(width, of_width[place], stated) for place in (0, 1))
        nets[width] = keys, values_net
    return File(nets, _ACTIVATIONS[stated.activation] if stated.activation else None)


def architecture(widths: Collection[int]) -> str:
    """Return the architecture whose text is among the widths that a hypernetwork reads, else the usual one."""
    return next((name for name, width in _texts().items() if width in widths), _USUAL_ARCHITECTURE)


def details(widths: Collection[int]) -> dict[str, int]:
    """Return what must fit the checkpoint: the width of the text, or that of the U-Net if the text's is not known."""
    context = _texts()[architecture(widths)]
    return {"context": context} if context in widths else {"width": min(widths)}


def _texts() -> dict[str, int]:
    """Return the width of the text that each architecture's usual checkpoints read."""
    return {name: sum(one.text_widths.values()) for name, one in ARCHITECTURES.items() if one.starts_from_noise}


def _stated(values: Mapping[str, object]) -> _Stated:
    structure = values.get("layer_structure", _USUAL_STRUCTURE)
    if not isinstance(structure, list | tuple) or not 2 <= len(structure) <= _MOST_LAYERS + 1:
        raise ModelFileError(
            f"its layer_structure is not a list of 2 to {_MOST_LAYERS + 1} multiples, such as [1, 2, 1]"
        )
    multiples = tuple(config_bounds.positive("layer_structure", one) for one in structure)
    if multiples[0] != 1 or multiples[-1] != 1:
        raise ModelFileError(
            "its layer_structure does not begin and end with 1, so nothing can be added to the context"
        )
    activates, is_normed = _flag(values, "activate_output", usual=True), _flag(values, "is_layer_norm", usual=False)
    return _Stated(multiples, _activation(values.get("activation_func")), activates, is_normed)


def _activation(given: object) -> str | None:
    if given in (None, _IDENTITY):
        return None
    if not isinstance(given, str) or given not in _ACTIVATIONS:
        known = ", ".join([_IDENTITY, *_ACTIVATIONS])
        raise ModelFileError(f"its activation_func is {config_bounds.shown(given)}; these are known: {known}")
    return given


def _flag(values: Mapping[str, object], name: str, *, usual: bool) -> bool:
    value = values.get(name, usual)
    if not isinstance(value, bool):
        raise ModelFileError(f"its {name} is {config_bounds.shown(value)}, not true or false")
    return value


Numbered = dict[int, dict[str, Tensor]]
"""The weights of a net by their places in the row, then "weight" and "bias"."""


def _numbered(weights: Mapping[str, Tensor]) -> dict[int, dict[int, Numbered]]:
    """Return the weights of each net, by its width and its place in the pair."""
    found: dict[int, dict[int, Numbered]] = {}
    for name, weight in weights.items():
        if name == tensors.TRAINING_STEP:
            continue
        match = _WEIGHT.fullmatch(name)
        if match is None:
            raise ModelFileError("holds a weight beside its nets that no hypernetwork has")
        width, place, number, old = match[1], match[2], match[3], match[4]
        index = int(number) if number else int(old) - 1
        found.setdefault(int(width), {}).setdefault(int(place), {}).setdefault(index, {})[match[5]] = weight
    if len(found) > _MOST_WIDTHS:
        raise ModelFileError(f"has nets for {len(found):,} widths; at most {_MOST_WIDTHS} are read")
    return found


def _net(width: int, found: Numbered, stated: _Stated) -> Net:
    """Return a net whose weights are those that the file states. Raises ModelFileError."""
    sizes = [int(width * multiple) for multiple in stated.structure]
    if not 1 <= min(sizes) <= max(sizes) <= _WIDEST:
        raise ModelFileError(f"its layer_structure makes no layers of 1 to {_WIDEST:,} values for width {width}")
    layers, index, places = [], 0, sorted(found)
    for number, (before, after) in enumerate(pairwise(sizes)):
        if number and index + 1 in found and index not in found:
            index += 1  # dropout
        weight, bias = _weights(width, found, index, (after, before), after)
        is_activated = stated.is_activated(number)
        index += 1 + is_activated
        norm = _weights(width, found, index, (after,), after) if stated.is_normed else None
        index += stated.is_normed
        layers.append(Layer(weight, bias, is_activated, norm))
    if len(places) != len(layers) * (1 + stated.is_normed):
        raise ModelFileError(
            f"has {len(places)} layers with weights in a net for width {width}, and states {len(layers)}"
        )
    return tuple(layers)


def _weights(width: int, found: Numbered, index: int, shape: tuple[int, ...], outputs: int) -> tuple[Tensor, Tensor]:
    """Return weight and bias at a place in the row of a net. Raises ModelFileError unless both are there."""
    shapes = {"weight": shape, "bias": (outputs,)}
    for name, right in shapes.items():
        one = found.get(index, {}).get(name)
        if one is None:
            raise ModelFileError(
                f"lacks the {name} of layer {index} in a net for width {width}, which its header states"
            )
        if tuple(one.shape) != right:
            raise ModelFileError(
                f"its {name} of layer {index} in a net for width {width} has the shape {tuple(one.shape)}, not {right}"
            )
        number_formats.require_readable(f"{name} of layer {index}", one)
    return found[index]["weight"], found[index]["bias"]
