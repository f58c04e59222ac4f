"""Files of upscalers and face restorers: recognised, inspected without reading their weights, and loaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

from worker.engine import devices
from worker.engine.cuda_errors import is_out_of_memory
from worker.engine.devices import Device
from worker.engine.files import kinds, tensors
from worker.engine.transfers import hand_over
from worker.engine.upscaling import architectures
from worker.engine.upscaling.architectures import PixelNetwork

MakeRoom = Callable[[int], object]

_RESTORER: Final = "a face restorer"
_OURS: Final = frozenset({None, "an upscaler of an unknown architecture", _RESTORER})


class Facts(NamedTuple):
    """What a file of an upscaler or a face restorer is."""

    kind: Literal["upscaler", "face-restorer"]
    algorithm: str  # for people
    scale: int
    numbers: Mapping[str, int]  # how many are stored in each number format


def holds_one(weights: Mapping[str, Tensor]) -> bool:
    """Return whether these are the weights of an upscaler or a face restorer alone, by their names."""
    if kinds.is_checkpoint(weights) or kinds.named(weights) not in _OURS:
        return False
    return architectures.recognised(weights) is not None


def holds_restorer(weights: Mapping[str, Tensor]) -> bool:
    """Return whether these are the weights of a face restorer, by their names; also of one that cannot be used."""
    if kinds.is_checkpoint(weights):
        return False
    return kinds.named(weights) == _RESTORER or (holds_one(weights) and architectures.is_restorer(weights))


def inspected(path: Path) -> Facts:
    """Return what the file at `path` is. Raises ModelFileError if it would not load, and MemoryError.

    For a process that reads one file at a time: it silences warnings meanwhile.
    """
    weights = tensors.read(path)  # some networks are described by values, not only by shapes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a weight is copied to where an outline has none
            network = architectures.built(weights, is_outline=True)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise
    numbers: dict[str, int] = {}
    for weight in weights.values():
        name = str(weight.dtype).removeprefix("torch.")
        numbers[name] = numbers.get(name, 0) + weight.numel()
    kind: Literal["upscaler", "face-restorer"] = "face-restorer" if network.restores_faces else "upscaler"
    return Facts(kind, network.algorithm, network.scale, numbers)


def load(path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom = lambda _: None) -> PixelNetwork:
    """Return the upscaler or face restorer at `path`, resident on `device`; `dtype` is the format of U-Nets there.

    Strict: raises ModelFileError if a weight is missing, left over or misshapen, or if anything else is wrong with the
    file. Nothing in the file is executed.
    """
    network = architectures.built(tensors.read(path))
    network.to(dtype=_number_format(network, device, dtype))
    if device.kind == "cuda":
        make_room(network.bytes)
        network.to(device.torch)
        hand_over([*network.parameters(), *network.buffers()], device)
    return network


def _number_format(network: PixelNetwork, device: Device, dtype: torch.dtype) -> torch.dtype:
    """Return float32 beside U-Nets in float32; else a format of 16 bits, if network and device have one."""
    if dtype == torch.float32:
        return torch.float32
    formats = devices.half_formats(device)
    return next((one for one in network.half_formats if one in formats), torch.float32)
