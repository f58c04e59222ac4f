"""Weights under other names, by diffusers' own converters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.files.config_bounds import Config

_MOST_WEIGHTS: Final = 4096  # of one network; the U-Net of Stable Diffusion XL has 1,680


def renamed(
    convert: Callable[[dict[str, Tensor], Config], Mapping[str, Tensor | None]],
    weights: Mapping[str, Tensor],
    config: Config,
) -> dict[str, Tensor]:
    """Return the weights under the names, and in the shapes, that `convert` gives them.

    It gets only shapes, each a separate tensor, to learn which weights it drops silently.
    """
    if len(weights) > _MOST_WEIGHTS:
        raise ModelFileError(f"one of its networks has {len(weights):,} weights; at most {_MOST_WEIGHTS:,} are read")
    shapes = {name: torch.empty(weight.shape, device="meta") for name, weight in weights.items()}
    names = {id(shape): name for name, shape in shapes.items()}
    converted = {new: shape for new, shape in convert(shapes, config).items() if shape is not None}
    sources = {new: names[id(shape if shape._base is None else shape._base)] for new, shape in converted.items()}  # noqa: SLF001 - a view's origin has no other name
    if surplus := sorted(weights.keys() - sources.values()):
        raise ModelFileError(f"it has {len(surplus)} weights too many, first {surplus[0]}")
    return {new: weights[name].reshape(converted[new].shape) for new, name in sources.items()}
