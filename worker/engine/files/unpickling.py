"""The names that a pickle of PyTorch may use, and what stands in for each: a table lists the only ones.

A pickle calls the functions that it names. Here these are stand-ins: some record where a tensor lies in the file, the
others accept any arguments and do nothing. So a pickle cannot run code.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import torch

from shared.errors import ModelFileError

_MOST_SIDES: Final = 8  # of a tensor


class Inert:
    """Stands in for objects that trainers leave beside the weights: accepts any arguments, does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        """Forget all arguments."""

    def __setstate__(self, *_: object) -> None:
        """Forget the state, also one that is meant for the class."""

    def __setitem__(self, _: object, __: object) -> None:
        """Forget an item."""

    def append(self, _: object) -> None:
        """Forget an item."""

    add = extend = append


class _Named(dict[Any, Any]):
    """A dictionary of weights without its other state."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, *_: object) -> None:
        """Forget the state, where modules record their versions."""


class _Parameters(_Named):
    """A module that holds weights by name, in its state."""

    def __setstate__(self, *states: object) -> None:
        """Keep the weights."""
        for state in states:
            held = state.get("_parameters") if isinstance(state, Mapping) else None
            self.update(held if isinstance(held, Mapping) else {})


@dataclass(frozen=True)
class Storage:
    """A part of the file that holds values of tensors."""

    key: str
    dtype: torch.dtype | None  # None: bytes, and each tensor has its own format
    count: int

    def __setstate__(self, _: object) -> None:
        """Forget the state."""


@dataclass(frozen=True)
class Placed:
    """A tensor as the pickle describes it: its place in a storage."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, _: object) -> None:
        """Forget the state."""


class _Call:
    """A function that a pickle may call; it has no attributes that a pickle could set."""

    __slots__ = ("_function",)

    def __init__(self, function: Any) -> None:  # noqa: ANN401 - one of the functions below, or the name of a storage
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, _: object) -> None:
        """Forget the state."""


def _rebuilt(storage: Storage, offset: int, shape: Any, strides: Any, *_: object) -> Placed:  # noqa: ANN401
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise TypeError("no storage")
    return Placed(storage, storage.dtype, _whole(offset), _wholes(shape), _wholes(strides))


def _rebuilt_of_bytes(*arguments: Any) -> Placed:  # noqa: ANN401 - storage, offset, shape, strides, two more, dtype
    storage, offset, shape, strides, _, _, dtype = arguments[:7]
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise TypeError("no storage")
    return Placed(storage, dtype, _whole(offset), _wholes(shape), _wholes(strides))


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("no size")
    return value


def _wholes(values: Any) -> tuple[int, ...]:  # noqa: ANN401 - any content of the file
    if not isinstance(values, tuple) or len(values) > _MOST_SIDES:
        raise TypeError("no shape")
    return tuple(map(_whole, values))


_REBUILDERS: Final = {
    "_rebuild_tensor": _rebuilt,
    "_rebuild_tensor_v2": _rebuilt,
    "_rebuild_tensor_v3": _rebuilt_of_bytes,
    "_rebuild_parameter": lambda tensor, *_: tensor,
    "_rebuild_parameter_with_state": lambda tensor, *_: tensor,
}
_STORED: Final = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "UntypedStorage": None,
}  # fmt: skip
_DTYPES: Final = {str(one): one for one in vars(torch).values() if isinstance(one, torch.dtype)}
_DICTIONARIES: Final = {
    "collections.OrderedDict": _Named,
    "collections.defaultdict": _Named,
    "builtins.dict": _Named,
    "torch.nn.modules.container.ParameterDict": _Parameters,
}
_FORGOTTEN: Final = (
    "pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy.", "pathlib.", "datetime.",
    "torch.nn.", "torch.optim.",
)  # fmt: skip
_FORGOTTEN_NAMES: Final = frozenset(
    {
        "builtins.bytearray", "builtins.bytes", "builtins.complex", "builtins.frozenset", "builtins.int",
        "builtins.float", "builtins.list", "builtins.object", "builtins.set", "builtins.str", "builtins.tuple",
        "argparse.Namespace", "collections.Counter", "collections.deque", "copyreg._reconstructor",
        "torch.Size", "torch.device", "torch._utils._rebuild_sparse_tensor", "torch.serialization._get_layout",
        "_codecs.encode", "typing.Any",
    }
)  # fmt: skip
_OLD_NAMES: Final = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Unpickler(pickle.Unpickler):
    """Reads numbers, texts, containers and stand-ins from a pickle."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - any stand-in
        module = _OLD_NAMES.get(module, module)
        full = f"{module}.{name}"
        if module == "torch._utils" and name in _REBUILDERS:
            return _Call(_REBUILDERS[name])
        if full == "torch._tensor._rebuild_from_type_v2":
            return _Call(_rebuilt_from_type)
        if module in {"torch", "torch.cuda", "torch.storage"} and name in _STORED:
            return _Call(name)
        if full in _DTYPES:
            return _DTYPES[full]
        if full in _DICTIONARIES:
            return _DICTIONARIES[full]
        if full in _FORGOTTEN_NAMES or full.startswith(_FORGOTTEN):
            return Inert
        known = full if len(full) <= 80 and full.isascii() and full.isprintable() else "of a strange name"
        raise ModelFileError(f"holds code or objects, which are not loaded ({known})")

    def persistent_load(self, storage: Any) -> Any:  # noqa: ANN401 - any content of the file
        if storage[0] == "module":  # the first form stores a class with its source
            return storage[1]
        _, kind, key, _, count, *view = storage
        if not isinstance(kind, _Call) or not isinstance(key, str) or any(view):
            raise TypeError("no storage")
        self.storages[key] = Storage(key, _STORED[kind._function], _whole(count))  # noqa: SLF001 - of this module
        return self.storages[key]


def _rebuilt_from_type(rebuild: Any, _: object, arguments: tuple[object, ...], *__: object) -> object:  # noqa: ANN401
    if not isinstance(rebuild, _Call):
        raise TypeError("no rebuilder")
    return rebuild(*arguments)
