"""PyTorch's own files, read without PyTorch's reader: a table lists the only names that a pickle may use.

A pickle calls the functions that it names. Here these are stand-ins: some record where a tensor lies in the file, the
others accept any arguments and do nothing. So a file cannot allocate more than its own size or run code, and its
weights are views of it.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Final, Literal, TypeVar

import torch
from torch import Tensor

from shared.errors import ModelFileError

T = TypeVar("T")
FIRST_FORM: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of the first form begin: a pickled number that PyTorch chose."""
_FIRST_VERSION: Final = 1001
_MOST_PICKLE_BYTES: Final = 2**25  # a checkpoint's is 0.3 MB
_MOST_RECORDS: Final = 2**16
MOST_TENSORS: Final = 2**16
"""In a model file; Stable Diffusion XL has 2,515, an adapter for it some thousands."""
TRAINING_STEP: Final = "global_step"
"""Name of a number that trainers put beside the weights; it is returned with them."""
NAMELESS: Final = "*"
"""Name of the tensor in a file that is nothing else."""
EMBEDDING: Final = "string_to_param"
"""Name under which an embedding holds its tensors by the words that it teaches."""
_HOLDERS: Final = frozenset({EMBEDDING, "image_proj", "ip_adapter"})
"""Names of dictionaries in which files of some kinds hold their tensors."""
_MOST_PARTS: Final = 3  # dictionaries that are looked for under a number; hypernetworks have two
_LONGEST_LIST: Final = 64  # of a value beside the weights
NUMBERS: Final = (".alpha", ".on_input")
"""Endings of names of single numbers, which adapters have beside weights; they are read with the shapes of weights."""
_MOST_SIDES: Final = 8  # of a tensor
_WRAPPINGS: Final = 2  # trainers put the weights under one of these names, sometimes twice
_WRAPPERS: Final = ("model_state_dict", "state_dict", "params_ema", "params-ema", "params", "model", "net")
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")  # of a record in a zip file: its mark, the lengths of name and extras
_COUNT: Final = struct.Struct("<q")  # of values, before each storage of the first form


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
class _Storage:
    key: str
    dtype: torch.dtype | None  # None: bytes, and each tensor has its own format
    count: int

    def __setstate__(self, _: object) -> None:
        """Forget the state."""


@dataclass(frozen=True)
class _Placed:
    """A tensor as the pickle describes it: its place in a storage."""

    storage: _Storage
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


def _rebuilt(storage: _Storage, offset: int, shape: Any, strides: Any, *_: object) -> _Placed:  # noqa: ANN401
    if not isinstance(storage, _Storage) or storage.dtype is None:
        raise TypeError("no storage")
    return _Placed(storage, storage.dtype, _whole(offset), _wholes(shape), _wholes(strides))


def _rebuilt_of_bytes(*arguments: Any) -> _Placed:  # noqa: ANN401 - storage, offset, shape, strides, two more, dtype
    storage, offset, shape, strides, _, _, dtype = arguments[:7]
    if not isinstance(storage, _Storage) or not isinstance(dtype, torch.dtype):
        raise TypeError("no storage")
    return _Placed(storage, dtype, _whole(offset), _wholes(shape), _wholes(strides))


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


class _Unpickler(pickle.Unpickler):
    """Reads numbers, texts, containers and stand-ins from a pickle."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

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
        self.storages[key] = _Storage(key, _STORED[kind._function], _whole(count))  # noqa: SLF001 - of this module
        return self.storages[key]


def _rebuilt_from_type(rebuild: Any, _: object, arguments: tuple[object, ...], *__: object) -> object:  # noqa: ANN401
    if not isinstance(rebuild, _Call):
        raise TypeError("no rebuilder")
    return rebuild(*arguments)


Places = Mapping[str, tuple[int, int]]
"""For each storage, the position in the file and its bytes."""


def read(file: BinaryIO, where: Literal["cpu", "meta"]) -> dict[str, Tensor]:
    """Return the tensors of PyTorch's `file` by name: on the CPU, views of it. Raises ModelFileError, MemoryError.

    A tensor within others has both names with a point between them, and one without a name is called `*`.
    """
    return _explaining(lambda: dict(_tensors(file, where)))


def values(file: BinaryIO) -> dict[str, object]:
    """Return what PyTorch's `file` holds by name beside tensors: numbers, texts, and lists of them. Raises as `read`.

    They are what a stranger wrote.
    """

    def found() -> dict[str, object]:
        content, _ = _content(file)
        named = content if isinstance(content, Mapping) else {}
        return {name: value for name, value in named.items() if isinstance(name, str) and _is_plain(value)}

    return _explaining(found)


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= _LONGEST_LIST and all(isinstance(one, bool | int | float | str) for one in value)
    return value is None or isinstance(value, bool | int | float | str)


def _explaining(reading: Callable[[], T]) -> T:
    try:
        return reading()
    except (ModelFileError, MemoryError):
        raise
    except zipfile.BadZipFile as error:
        lost = "the list of its records, which ends it, is missing or altered"
        raise ModelFileError(f"is damaged, as after a download that broke off: {lost}. Download it again") from error
    except Exception as error:  # an altered file can raise any error in its reader
        raise ModelFileError(f"is damaged or not a PyTorch file ({type(error).__name__})") from error


def _content(file: BinaryIO) -> tuple[object, Places]:
    return _of_first_form(file) if file.read(2) != b"PK" else _of_zip(file)


def _tensors(file: BinaryIO, where: Literal["cpu", "meta"]) -> Iterator[tuple[str, Tensor]]:
    content, places = _content(file)
    placed = _named(content)
    placed.pop(TRAINING_STEP, None)  # as a tensor it could not be read without the weights
    step = content.get(TRAINING_STEP) if isinstance(content, Mapping) else None
    if type(step) is int and 0 <= step < 2**63:
        yield TRAINING_STEP, torch.tensor(step)
    for one in placed.values():
        _require_inside(one, places)
    begins = {key: begin for key, (begin, _) in places.items()}
    if where == "meta":
        for name, one in placed.items():
            is_number = name.endswith(NUMBERS) and math.prod(one.shape) == 1
            yield name, _number(file, one, begins[one.storage.key]) if is_number else _bare(one)
        return
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # PyTorch wants it writable: pages are copied then
    yield from ((name, _view(mapped, one, begins.get(one.storage.key, 0))) for name, one in placed.items())


def _of_zip(file: BinaryIO) -> tuple[object, Places]:
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        if len(records) > _MOST_RECORDS:
            raise ModelFileError(f"has {len(records):,} records; at most {_MOST_RECORDS:,} are read")
        named = {record.filename.partition("/")[2]: record for record in records}
        if "data.pkl" not in named:
            raise ModelFileError("is a zip file, but not one of PyTorch's: it holds no data.pkl")
        if "constants.pkl" in named or any(name.startswith("code/") for name in named):
            raise ModelFileError("is a TorchScript program, which is not loaded")
        if any(record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1 for record in records):
            raise ModelFileError("holds compressed records, which PyTorch never writes: not read")
        if (size := named["data.pkl"].file_size) > _MOST_PICKLE_BYTES:
            raise ModelFileError(f"its data.pkl has {size:,} bytes; at most {_MOST_PICKLE_BYTES:,} are read")
        if "byteorder" in named and archive.read(named["byteorder"]) == b"big":
            raise ModelFileError("was written on a machine of the other byte order")
        content = _Unpickler(io.BytesIO(archive.read(named["data.pkl"]))).load()
    data = {name[5:]: record for name, record in named.items() if name.startswith("data/")}
    return content, {key: (_start(file, record), record.file_size) for key, record in data.items()}


def _start(file: BinaryIO, record: zipfile.ZipInfo) -> int:
    """Return the position of a record's bytes."""
    file.seek(record.header_offset)
    mark, name, extras = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if mark != b"PK\x03\x04":
        raise ValueError("no record")
    return int(record.header_offset + _LOCAL_HEADER.size + name + extras)


def _of_first_form(file: BinaryIO) -> tuple[object, Places]:
    file.seek(0)
    if file.read(len(FIRST_FORM)) != FIRST_FORM:
        raise ModelFileError("is damaged or not a PyTorch file (it does not begin as one)")
    version, system = _Unpickler(file).load(), _Unpickler(file).load()
    if version != _FIRST_VERSION or not system.get("little_endian", True):
        raise ModelFileError("was written by an unknown version of PyTorch, or on a machine of the other byte order")
    unpickler = _Unpickler(file)
    content, keys = unpickler.load(), _Unpickler(file).load()
    places, begin, end = {}, file.tell(), file.seek(0, io.SEEK_END)
    for key in keys:  # the weights follow, each after the number of its values
        begin += _COUNT.size
        storage = unpickler.storages[key]
        size = storage.count * (storage.dtype.itemsize if storage.dtype else 1)
        places[key] = (begin, size)
        begin += size
    return content, {key: place for key, place in places.items() if sum(place) <= end}


def _named(content: Any) -> dict[str, _Placed]:  # noqa: ANN401 - any content of the file
    for _ in range(_WRAPPINGS):
        inside = content if isinstance(content, Mapping) else {}
        wrapping = next((name for name in _WRAPPERS if isinstance(inside.get(name), Mapping)), None)
        content = content[wrapping] if wrapping else content
    if isinstance(content, _Placed):
        return {NAMELESS: content}
    if not isinstance(content, Mapping):
        raise ModelFileError("holds no weights by name")
    if (size := sum(1 for _ in islice(_items(content), MOST_TENSORS + 1))) > MOST_TENSORS:
        raise ModelFileError(f"has {max(size, len(content)):,} weights; at most {MOST_TENSORS:,} are read")
    return {str(name): value for name, value in _items(content) if isinstance(value, _Placed)}


def _items(content: Mapping[Any, Any]) -> Iterator[tuple[object, object]]:
    """Yield the items of a file, and those of the dictionaries within it in which some kinds hold their weights."""
    yield from content.items()
    for outer, value in content.items():
        parts: dict[str, object] = {}
        if isinstance(outer, str) and outer in _HOLDERS:
            parts = {outer: value}
        elif isinstance(outer, int) and isinstance(value, list | tuple):
            parts = {f"{outer}.{place}": part for place, part in enumerate(value[:_MOST_PARTS])}
        for name, part in parts.items():
            if isinstance(part, Mapping):
                yield from ((f"{name}.{inner}", one) for inner, one in part.items())


def _require_inside(one: _Placed, places: Places) -> None:
    """Raise ModelFileError unless a tensor lies within its storage and is no larger than that."""
    count, width = math.prod(one.shape), one.dtype.itemsize
    if not count:
        return
    _, size = places.get(one.storage.key, (0, -1))
    steps = zip(one.shape, one.strides, strict=True)
    last = one.offset + sum((length - 1) * stride for length, stride in steps) + 1
    if max(count, last) * width > size:
        raise ModelFileError("is damaged: a weight lies outside of it")


def _bare(one: _Placed) -> Tensor:
    return torch.empty(one.shape, dtype=one.dtype, device="meta")


def _number(file: BinaryIO, one: _Placed, begin: int) -> Tensor:
    file.seek(begin + one.offset * one.dtype.itemsize)
    return torch.frombuffer(bytearray(file.read(one.dtype.itemsize)), dtype=one.dtype).view(one.shape)


def _view(mapped: mmap.mmap, one: _Placed, begin: int) -> Tensor:
    count, width = math.prod(one.shape), one.dtype.itemsize
    if not count:
        return torch.empty(one.shape, dtype=one.dtype)
    last = one.offset + sum((length - 1) * stride for length, stride in zip(one.shape, one.strides, strict=True)) + 1
    begin += one.offset * width
    buffer = mapped if begin % width == 0 else bytearray(mapped[begin : begin + (last - one.offset) * width])
    flat = torch.frombuffer(
        buffer, dtype=one.dtype, count=last - one.offset, offset=begin if buffer is mapped else 0
    )  # the mapping, and with it the file, is kept as long as a view is
    return flat.as_strided(one.shape, one.strides)
