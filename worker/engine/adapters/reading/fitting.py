"""A file of the LoRA family meets a checkpoint: each of its layers is one of the checkpoint's, and of its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from shared.errors import ModelFileError
from worker.engine.adapters.differences import differences
from worker.engine.adapters.low_rank import LowRank
from worker.engine.adapters.reading import modules
from worker.engine.architectures.weights import Weights
from worker.engine.files.lora.algorithms import Layer, shapes, shortened
from worker.engine.files.lora.names import UNET
from worker.engine.files.lora.reading import LoraFile, listed

Fitted = Mapping[str, Mapping[str, Layer]]
"""Layers by diffusers' name of their network, and by their path in it."""


class Product(NamedTuple):
    """The factors of a low-rank layer as its file has them."""

    down: Tensor  # [rank, in], or of a convolution [rank, in, kh, kw]
    up: Tensor  # [out, rank]
    scale: float


def networks_of(weights: Weights) -> dict[str, nn.Module]:
    """Return the networks of a checkpoint that adapters change, by diffusers' names."""
    return {UNET: weights.unet, **{encoder.name: encoder.network for encoder in weights.text_encoders}}


def fitted(file: LoraFile, networks: Mapping[str, nn.Module]) -> Fitted:
    """Return the layers of `file` by their paths in `networks`, these by diffusers' names.

    Raises ModelFileError that names a layer which is not there, or has another size there.
    """
    found: dict[str, dict[str, Layer]] = {}
    missing = []
    for name, layers in file.layers.items():
        paths = modules.by_name(networks[name], name) if name in networks else {}
        missing += [layer.name for key, layer in layers.items() if key not in paths]
        found[name] = {}
        for key, layer in layers.items():
            if (path := paths.get(key)) is None:
                continue
            if path in found[name]:
                both = f"{shortened(found[name][path].name)} and {shortened(layer.name)}"
                raise ModelFileError(f"has two layers for one of the checkpoint, {both}")
            found[name][path] = layer
    if missing:
        raise ModelFileError(f"does not fit this checkpoint, which lacks {listed(missing, len(file.every), 'layers')}")
    for name, fitting in found.items():
        for path, layer in fitting.items():
            require_size(layer, networks[name].get_submodule(path))
    return found


def require_size(layer: Layer, module: nn.Module) -> None:
    """Raise ModelFileError, with both sizes, unless `layer` changes a weight of the shape that `module` has."""
    there = {name: weight.to("meta", torch.float32) for name, weight in module.named_parameters(recurse=False)}
    try:
        differences(layer.on(torch.device("meta")), there, 1.0)
    except (ModelFileError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"does not fit this checkpoint: its layer {shortened(layer.name)} has {shapes(layer.parameters)}; the "
            f"checkpoint's has {shapes(there)}"
        ) from error


def require_fit(adapter: LowRank, networks: Mapping[str, nn.Module]) -> None:
    """Raise ModelFileError unless an adapter that was loaded for another checkpoint fits these networks too."""
    for name, layers in adapter.networks.items():
        modules_there = dict(networks[name].named_modules()) if name in networks else {}
        for path, (down, up) in layers.items():
            weight = getattr(modules_there.get(path), "weight", None)
            there = None if weight is None else tuple(weight.shape)
            if there != (len(up), *down.shape[1:]):
                here = f"{len(up)} x {tuple(down.shape[1:])}"
                raise ModelFileError(
                    f"does not fit this checkpoint: its {name} layer {path} is for {here}, and is {there} there"
                )


def products(fitting: Fitted, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Product]]:
    """Return the factors of low-rank layers, in the forms that their modules have."""
    return {
        name: {path: _product(layer, networks[name].get_submodule(path)) for path, layer in layers.items()}
        for name, layers in fitting.items()
    }


def _product(layer: Layer, module: nn.Module) -> Product:
    down, up = layer.parameters["down"], layer.parameters["up"].flatten(1)
    kernel = module.weight.shape[2:] if isinstance(module.weight, Tensor) else ()
    return Product(down.flatten(1).unflatten(1, (-1, *kernel)) if kernel else down.flatten(1), up, layer.scale)
