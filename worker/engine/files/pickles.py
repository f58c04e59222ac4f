"""PyTorch's own files, read without PyTorch's reader: what is inside by name, and where it lies in the file.

A file cannot allocate more than its own size or run code, and its weights are views of it.
"""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, BinaryIO, Final, Literal, TypeVar

import torch
from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.files.unpickling import Placed, Unpickler

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
_WRAPPINGS: Final = 2  # trainers put the weights under one of these names, sometimes twice
_WRAPPERS: Final = ("model_state_dict", "state_dict", "params_ema", "params-ema", "params", "model", "net")
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")  # of a record in a zip file: its mark, the lengths of name and extras
_COUNT: Final = struct.Struct("<q")  # of values, before each storage of the first form

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
        content = Unpickler(io.BytesIO(archive.read(named["data.pkl"]))).load()
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
    version, system = Unpickler(file).load(), Unpickler(file).load()
    if version != _FIRST_VERSION or not system.get("little_endian", True):
        raise ModelFileError("was written by an unknown version of PyTorch, or on a machine of the other byte order")
    unpickler = Unpickler(file)
    content, keys = unpickler.load(), Unpickler(file).load()
    places, begin, end = {}, file.tell(), file.seek(0, io.SEEK_END)
    for key in keys:  # the weights follow, each after the number of its values
        begin += _COUNT.size
        storage = unpickler.storages[key]
        size = storage.count * (storage.dtype.itemsize if storage.dtype else 1)
        places[key] = (begin, size)
        begin += size
    return content, {key: place for key, place in places.items() if sum(place) <= end}


def _named(content: Any) -> dict[str, Placed]:  # noqa: ANN401 - any content of the file
    for _ in range(_WRAPPINGS):
        inside = content if isinstance(content, Mapping) else {}
        wrapping = next((name for name in _WRAPPERS if isinstance(inside.get(name), Mapping)), None)
        content = content[wrapping] if wrapping else content
    if isinstance(content, Placed):
        return {NAMELESS: content}
    if not isinstance(content, Mapping):
        raise ModelFileError("holds no weights by name")
    if (size := sum(1 for _ in islice(_items(content), MOST_TENSORS + 1))) > MOST_TENSORS:
        raise ModelFileError(f"has {max(size, len(content)):,} weights; at most {MOST_TENSORS:,} are read")
    return {str(name): value for name, value in _items(content) if isinstance(value, Placed)}


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


def _require_inside(one: Placed, places: Places) -> None:
    """Raise ModelFileError unless a tensor lies within its storage and is no larger than that."""
    count, width = math.prod(one.shape), one.dtype.itemsize
    if not count:
        return
    _, size = places.get(one.storage.key, (0, -1))
    steps = zip(one.shape, one.strides, strict=True)
    last = one.offset + sum((length - 1) * stride for length, stride in steps) + 1
    if max(count, last) * width > size:
        raise ModelFileError("is damaged: a weight lies outside of it")


def _bare(one: Placed) -> Tensor:
    return torch.empty(one.shape, dtype=one.dtype, device="meta")


def _number(file: BinaryIO, one: Placed, begin: int) -> Tensor:
    file.seek(begin + one.offset * one.dtype.itemsize)
    return torch.frombuffer(bytearray(file.read(one.dtype.itemsize)), dtype=one.dtype).view(one.shape)


def _view(mapped: mmap.mmap, one: Placed, begin: int) -> Tensor:
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
