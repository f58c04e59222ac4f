"""Tensors out of files that anybody may have written: read, or refused with a reason; nothing in them is executed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.devices import is_out_of_memory

SAFETENSORS: Final = ".safetensors"
PICKLES: Final = frozenset({".ckpt", ".pt", ".pth", ".bin"})
Where = Literal["cpu", "meta"]  # meta: shapes alone, the weights stay unread
_WRAPPINGS: Final = 2  # trainers put the weights under "state_dict", now and then twice
_LIGHTNING: Final = ("pytorch_lightning.", "lightning.")


class Inert:
    """Stands in for the classes that PyTorch Lightning leaves in its checkpoints: takes everything, does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        """Forget all arguments."""

    def __setstate__(self, _: object) -> None:
        """Forget the state."""


def read(path: Path, where: Where = "cpu") -> dict[str, Tensor]:
    """Return the tensors of a model file by name. Raises ModelFileError that says what is wrong with it.

    On the CPU they may be views of the file: copy what is kept.
    """
    suffix = path.suffix.lower()
    if suffix != SAFETENSORS and suffix not in PICKLES:
        raise ModelFileError(f"is no model file: {SAFETENSORS} and {', '.join(sorted(PICKLES))} are read")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise ModelFileError("the file is empty")
    except OSError as error:
        raise ModelFileError(f"cannot be read: {error.strerror}") from error
    return _safetensors(path, where) if suffix == SAFETENSORS else _pickled(path, where)


def _safetensors(path: Path, where: Where) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if where == "cpu":
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"is damaged or no safetensors file ({error})") from error


def _pickled(path: Path, where: Where) -> dict[str, Tensor]:
    try:
        is_zip = zipfile.is_zipfile(path)
        with ExitStack() as stack:
            if is_zip:
                foreign = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
                inert: list[Any] = [(Inert, name) for name in foreign if name.startswith(_LIGHTNING)]
                stack.enter_context(torch.serialization.safe_globals(inert))
            content = torch.load(path, map_location=where, weights_only=True, mmap=is_zip and where == "cpu")
    except pickle.UnpicklingError as error:
        raise ModelFileError(f"holds code or objects, which are not loaded ({_first_line(error)})") from error
    except Exception as error:  # an altered file takes its reader anywhere
        if is_out_of_memory(error):
            raise
        raise ModelFileError(f"is damaged or no PyTorch file ({_first_line(error)})") from error
    return _tensors_in(content)


def _tensors_in(content: Any) -> dict[str, Tensor]:  # noqa: ANN401 - whatever the file holds
    for _ in range(_WRAPPINGS):
        if isinstance(content, Mapping) and "state_dict" in content:
            content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ModelFileError("holds no weights by name")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
