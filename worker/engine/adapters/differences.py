"""What each algorithm of the LoRA family changes about a layer's weight, in the number format of its parameters.

The formulas are LyCORIS's (Yeh et al. 2023, arXiv:2309.14859), whose library the tests compare them with. A strength
below 1 goes that part of the way from the weight to the changed one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from worker.engine.files.lora import algorithms
from worker.engine.files.lora.algorithms import Layer, Parameters

Weights = Mapping[str, Tensor]
"""A layer's "weight" and "bias"."""


def differences(layer: Layer, weights: Weights, strength: float) -> dict[str, Tensor]:
    """Return what `layer` adds to the `weights` of its module, by their names and in their shapes.

    Raises ValueError, RuntimeError, LookupError or TypeError if it is of another size than they are.
    """
    found = {}
    parameters = layer.parameters
    if layer.algorithm is algorithms.NORM:
        found = {name: parameters[key] for name, key in (("weight", "w_norm"), ("bias", "b_norm")) if key in parameters}
    elif layer.algorithm is not algorithms.DIFFERENCE or "diff" in parameters:
        return _of_bias(parameters, weights, strength) | {"weight": _of_weight(layer, weights["weight"], strength)}
    return _of_bias(parameters, weights, strength) | {
        name: strength * _shaped(one, weights[name]) for name, one in found.items()
    }


def _of_bias(parameters: Parameters, weights: Weights, strength: float) -> dict[str, Tensor]:
    return {"bias": strength * _shaped(parameters["diff_b"], weights["bias"])} if "diff_b" in parameters else {}


def _of_weight(layer: Layer, weight: Tensor, strength: float) -> Tensor:
    if layer.label == "BOFT":
        return _butterfly(layer.parameters, weight, strength)
    difference = _shaped(_DIFFERENCES[layer.algorithm.label](layer.parameters, weight) * layer.scale, weight)
    return strength * _decomposed(layer.parameters, weight, difference)


def _shaped(difference: Tensor, weight: Tensor) -> Tensor:
    """Return a difference in the shape of `weight`: files may have a matrix for a convolution, and the other way."""
    same_rows = difference.shape[:1] == weight.shape[:1]
    same_columns = difference.shape[1:].numel() == weight.shape[1:].numel()
    is_matrix = difference.dim() <= 2 or difference.shape[2:].numel() == 1
    if difference.shape != weight.shape and not (same_rows and same_columns and is_matrix):
        raise ValueError("a difference of another size")
    return difference.reshape(weight.shape)


def _decomposed(parameters: Parameters, weight: Tensor, difference: Tensor) -> Tensor:
    """Return the difference by DoRA, which gives each row (or column) of the changed weight a length of its own."""
    name = next(iter(algorithms.DECOMPOSED & parameters.keys()), None)
    if name is None:
        return difference
    changed, lengths = weight + difference, parameters[name]
    by_rows = name == "magnitude" or lengths.dim() == 1 or len(lengths) == len(weight) or lengths.shape[1] == 1
    kept = 0 if by_rows else 1
    across = [dimension for dimension in range(weight.dim()) if dimension != kept]
    after = lengths.reshape([-1 if dimension == kept else 1 for dimension in range(weight.dim())])
    before: Tensor = torch.linalg.vector_norm(changed, dim=across, keepdim=True)
    return changed * (after / (before + torch.finfo(before.dtype).eps)) - weight  # a row of zeros has no length


def _lora(parameters: Parameters, _: Tensor) -> Tensor:
    up, down = parameters["up"].flatten(1), parameters["down"]
    if "mid" in parameters:
        return torch.einsum("mn...,im,nj->ij...", parameters["mid"], up, down.flatten(1))
    return _times(up, down)


def _loha(parameters: Parameters, _: Tensor) -> Tensor:
    first, second = (
        _matrix(parameters, f"hada_w{number}_a", f"hada_w{number}_b", f"hada_t{number}") for number in (1, 2)
    )
    return first * second


def _lokr(parameters: Parameters, _: Tensor) -> Tensor:
    first, second = (
        parameters[name] if name in parameters else _matrix(parameters, f"{name}_a", f"{name}_b", core)
        for name, core in (("lokr_w1", "lokr_t1"), ("lokr_w2", "lokr_t2"))
    )
    return torch.kron(first.view(*first.shape, *(1 for _ in range(second.dim() - first.dim()))), second.contiguous())


def _matrix(parameters: Parameters, left: str, right: str, core: str) -> Tensor:
    """Return the product of two factors, around a Tucker core if there is one of that name."""
    if core in parameters:
        return torch.einsum("ij...,ip,jr->pr...", parameters[core], parameters[left], parameters[right])
    return _times(parameters[left], parameters[right])


def _times(left: Tensor, right: Tensor) -> Tensor:
    """Return `left` [out, rank] times `right` [rank, in, ...]."""
    product: Tensor = (left @ right.flatten(1)).unflatten(1, right.shape[1:])
    return product


def _oft(parameters: Parameters, weight: Tensor) -> Tensor:
    rotations = parameters["oft_diag"] if "oft_diag" in parameters else _rotations(parameters, len(weight))
    blocks = weight.unflatten(0, rotations.shape[:2])
    return _rescaled(parameters, torch.einsum("knm,kn...->km...", rotations, blocks).flatten(0, 1)) - weight


def _butterfly(parameters: Parameters, weight: Tensor, strength: float) -> Tensor:
    """Return the difference by BOFT (Liu et al. 2023, arXiv:2311.06243): each stage turns rows that lie further apart.

    The strength holds for each stage, as in LyCORIS.
    """
    rotations = _rotations(parameters, len(weight))
    size = rotations.shape[-1]
    rotations = torch.lerp(torch.eye(size, device=weight.device).expand_as(rotations), rotations, strength)
    changed = weight
    for stage, blocks in enumerate(rotations):
        step = 2**stage * (size // 2)
        mixed = changed.unflatten(0, (-1, 2, step)).transpose(1, 2).flatten(0, 2).unflatten(0, (-1, size))
        turned = torch.einsum("bij,bj...->bi...", blocks, mixed).flatten(0, 1)
        changed = turned.unflatten(0, (-1, step, 2)).transpose(1, 2).flatten(0, 2)
    return _rescaled(parameters, changed) - weight


def _rotations(parameters: Parameters, outputs: int) -> Tensor:
    """Return rotations by Cayley's transform of skew matrices, whose norm is held below a stated bound."""
    blocks = parameters["oft_blocks"]
    skew = blocks - blocks.mT
    bound = float(parameters["alpha"]) * outputs if "alpha" in parameters else 0.0
    if bound > 0:
        skew = skew * (bound / (torch.linalg.vector_norm(skew) + _TINY)).clamp(max=1)
    unit = torch.eye(skew.shape[-1], device=skew.device)
    rotations: Tensor = torch.linalg.solve(unit - skew, unit + skew, left=False)
    return rotations


def _rescaled(parameters: Parameters, weight: Tensor) -> Tensor:
    if "rescale" not in parameters:
        return weight
    return weight * parameters["rescale"].reshape(-1, *(1 for _ in weight.shape[1:]))


def _glora(parameters: Parameters, weight: Tensor) -> Tensor:
    names = ("a2", "a1", "b2", "b1") if algorithms.glora_is_old(parameters) else ("a1", "a2", "b1", "b2")
    a_left, a_right, b_left, b_right = (parameters[name] for name in names)
    through = torch.einsum("oi...,ij->oj...", weight, a_left.flatten(1) @ a_right.flatten(1))
    if "bm" in parameters:
        beside = torch.einsum("mn...,im,nj->ij...", parameters["bm"], b_left.flatten(1), b_right.flatten(1))
    else:
        beside = _times(b_left.flatten(1), b_right)
    return through + _shaped(beside, weight)


def _ia3(parameters: Parameters, weight: Tensor) -> Tensor:
    factors = parameters["weight"].flatten()
    kept = 1 if parameters["on_input"].any() else 0
    return weight * factors.reshape([-1 if dimension == kept else 1 for dimension in range(weight.dim())])


def _whole(parameters: Parameters, _: Tensor) -> Tensor:
    return parameters["diff"]


_TINY: Final = 1e-8
_DIFFERENCES: Final[Mapping[str, Callable[[Parameters, Tensor], Tensor]]] = {
    algorithms.LORA.label: _lora,
    algorithms.LOHA.label: _loha,
    algorithms.LOKR.label: _lokr,
    algorithms.OFT.label: _oft,
    algorithms.GLORA.label: _glora,
    algorithms.IA3.label: _ia3,
    algorithms.DIFFERENCE.label: _whole,
}
