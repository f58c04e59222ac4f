"""Files of the LoRA family to memory: as factors for rows on the checkpoint's device, or as what is to be merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from shared.errors import ModelFileError
from worker.engine.adapters.low_rank import Factors, LowRank
from worker.engine.adapters.reading.fitting import fitted, networks_of, products
from worker.engine.architectures.weights import Weights
from worker.engine.files.lora.algorithms import Parameters, shortened
from worker.engine.files.lora.reading import LoraFile, read
from worker.engine.loading.flat import ALIGNED_BYTES

MakeRoom = Callable[[int], object]
"""Called with the bytes of the card that the load will allocate next."""


@dataclass(frozen=True, eq=False)
class Deltas:
    """An adapter that is to be merged, in the memory of the host."""

    sha256: str
    name: str  # for people
    file: LoraFile

    @property
    def bytes(self) -> int:
        """The size of its weights in memory."""
        return sum(one.nbytes for layer in self.file.every for one in layer.parameters.values())


def load(path: Path, sha256: str, weights: Weights, make_room: MakeRoom = lambda _: None) -> LowRank:
    """Return the adapter at `path` for rows of `weights`, on their device and in their number format.

    Raises ModelFileError, with the reason, if the file cannot be used, if it does not fit, or if it has to be merged.
    """
    file = read(path)
    if file.form == "merged":
        raise ModelFileError(f"is of a form that has to be merged ({file.algorithm})")
    _require_finite(file)
    networks, dtype = networks_of(weights), weights.dtype
    factors = {
        name: {path: Factors.of(*one) for path, one in layers.items()}
        for name, layers in products(fitted(file, networks), networks).items()
    }
    for name, layers in factors.items():
        for layer, pair in layers.items():
            if any(one.abs().max() > torch.finfo(dtype).max for one in pair):
                form = str(dtype).removeprefix("torch.")
                raise ModelFileError(f"has numbers for {name}'s {layer} that are too large for {form}")
    every = [one for layers in factors.values() for pair in layers.values() for one in pair]
    make_room(sum(one.numel() * dtype.itemsize + ALIGNED_BYTES for one in every))
    return LowRank.on(
        weights.device, dtype, factors, sha256=sha256, name=path.stem, architecture=weights.architecture.name
    )


def load_deltas(path: Path, sha256: str) -> Deltas:
    """Return the adapter at `path`, to be merged into checkpoints. Raises ModelFileError as `load`.

    It is a copy: the file may be replaced while it is mapped.
    """
    file = read(path)
    _require_finite(file)
    layers = {
        network: {
            key: replace(layer, parameters=Parameters({name: one.clone() for name, one in layer.parameters.items()}))
            for key, layer in own.items()
        }
        for network, own in file.layers.items()
    }
    return Deltas(sha256, path.stem, replace(file, layers=layers))


def _require_finite(file: LoraFile) -> None:
    """Raise ModelFileError if a number is not finite: the picture would be black."""
    for layer in file.every:
        for name, one in layer.parameters.items():
            if one.is_floating_point() and not torch.isfinite(one.float()).all():
                raise ModelFileError(f"its layer {shortened(layer.name)} has a {name} with numbers that are not finite")
