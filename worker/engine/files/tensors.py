"""Tensors from the files of strangers: read, or refused with a reason; nothing in them is executed.

The first bytes of a file decide its form, not its name.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from shared.errors import ModelFileError
from shared.models import regular_files
from worker.engine.files import number_formats, origins, pickles
from worker.engine.files.kinds import OtherKind

SAFETENSORS: Final = ".safetensors"
PICKLES: Final = frozenset({".ckpt", ".pt", ".pth", ".bin"})
TRAINING_STEP: Final = pickles.TRAINING_STEP
Where = Literal["cpu", "meta"]  # meta: only shapes, the weights are not read
Form = Literal["safetensors", "pickle"]

_MOST_LISTED_BYTES: Final = 2**22  # of the header of a file that is cut off; it is read into many small objects
_LONGEST_NAME: Final = 200  # that an error message repeats
_UNKNOWN_FORMAT: Final = re.compile(r"unknown variant `(\w{1,24})`, expected one of `BOOL`")
_MOST_HEADER_BYTES: Final = 2**25  # of safetensors; a checkpoint's is 0.2 MB, and trainers add their notes
_INTEGERS: Final = frozenset(
    {torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64}
)
_HEAD: Final = struct.Struct("<Q")
_PICKLE_HEADS: Final = (b"PK\x03\x04", pickles.FIRST_FORM)
_NOT_MODELS: Final = (  # first bytes, and the reason
    (b"version https://git-lfs", "is a Git LFS pointer: the file itself was not downloaded (`git lfs pull` does it)"),
    (b"<", "is a web page: its download failed"),
    (b"{", "is a text (JSON), not a model"),
)


def read(path: Path, where: Where = "cpu") -> dict[str, Tensor]:
    """Return the tensors of a model file by name. Raises ModelFileError that says what is wrong with it.

    On the CPU they may be views of the file: copy them to keep them. `TRAINING_STEP`, and single numbers that scale
    an adapter, are numbers on any device.
    """
    return number_formats.plain(stored(path, where))


def stored(path: Path, where: Where) -> dict[str, Tensor]:
    """Return the tensors of one file of several, whose scales may be in another. Otherwise as `read`."""
    try:
        with regular_files.opened(path) as file:
            is_pickle = form(path, file) == "pickle"
            return pickles.read(file, where) if is_pickle else _safetensors(path, where)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or type(error).__name__}"
        raise ModelFileError(error.strerror if isinstance(error, regular_files.NotRegular) else reason) from error


def values(path: Path) -> dict[str, object]:
    """Return what a pickle holds by name beside tensors: numbers, texts, and lists of them. Raises ModelFileError.

    Empty for a safetensors file. A stranger wrote them.
    """
    with regular_files.opened(path) as file:
        return pickles.values(file) if form(path, file) == "pickle" else {}


def training_step(weights: Mapping[str, Tensor]) -> int | None:
    """Return how many steps a network was trained, if the file says so as one integer; else None."""
    step = weights.get(TRAINING_STEP)
    is_stated = step is not None and step.dtype in _INTEGERS and step.numel() == 1
    return int(step) if step is not None and is_stated else None


def wrong_ending(path: Path) -> str | None:
    """Return a note about a readable file with the wrong ending; None if its ending is right."""
    with regular_files.opened(path) as file:
        is_pickle = form(path, file) == "pickle"
    if is_pickle or path.suffix.lower() == SAFETENSORS:
        return None
    return f"is a safetensors file with the wrong ending: call it {path.stem}{SAFETENSORS}"


def form(path: Path, file: BinaryIO) -> Form:
    """Return the form of `file`, which is left at its beginning. Raises ModelFileError."""
    suffix, head = path.suffix.lower(), file.read(256)
    file.seek(0)
    if suffix not in (SAFETENSORS, ".gguf") and suffix not in PICKLES:
        raise ModelFileError(f"is not a model file: {SAFETENSORS} and {', '.join(sorted(PICKLES))} are read")
    if not head:
        raise ModelFileError("the file is empty")
    if head.startswith(b"GGUF"):
        raise OtherKind("a GGUF file")
    for start, what in _NOT_MODELS:
        if head.lstrip().startswith(start):
            raise ModelFileError(what)
    is_pickle = head.startswith(_PICKLE_HEADS)
    if suffix == SAFETENSORS and is_pickle:
        raise ModelFileError(f"is a PyTorch file (a pickle) with the wrong ending: call it {path.stem}.ckpt")
    # A length far below 2 ** 40, then a JSON object.
    is_json = head[_HEAD.size : _HEAD.size + 2] in (b'{"', b"{}")
    if suffix == SAFETENSORS or (len(head) > _HEAD.size and head[5:8] == bytes(3) and is_json):
        _require_short_header(file)
        return "safetensors"
    return "pickle"


def _require_short_header(file: BinaryIO) -> None:
    """Raise ModelFileError for a long header: reading it takes many times its length of memory and time."""
    head = file.read(_HEAD.size)
    file.seek(0)
    size = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
    if size > _MOST_HEADER_BYTES:
        raise ModelFileError(f"is damaged, or not a safetensors file: its header would be {size:,} bytes long")


def _safetensors(path: Path, where: Where) -> dict[str, Tensor]:
    try:
        # For PyTorch the whole file is mapped as writable memory, for which a confined reader has no room.
        with safe_open(path, framework="numpy" if where == "meta" else "pt") as file:
            names = list(file.keys())
            if len(names) > pickles.MOST_TENSORS:
                raise ModelFileError(f"has {len(names):,} weights; at most {pickles.MOST_TENSORS:,} are read")
            if where == "cpu":
                return {name: file.get_tensor(name) for name in names}
            found = {name: origins.marked(_on_meta(name, file), path, name) for name in names}
        return found | _numbers(path, found)
    except SafetensorError as error:
        if unknown := _UNKNOWN_FORMAT.search(str(error)):
            format_name = f"an unknown number format, {unknown[1]}"
            raise ModelFileError(f"is stored in {format_name}: {number_formats.READABLE}") from error
        raise ModelFileError(_missing(path) or f"is damaged or not a safetensors file ({error})") from error


def _numbers(path: Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the single numbers of a safetensors file that are read even if its weights are not."""
    wanted = {name: one for name, one in weights.items() if name.endswith(pickles.NUMBERS) and one.numel() == 1}
    starts = origins.starts(path) if wanted else {}
    found = {}
    with regular_files.opened(path) as file:
        for name, one in wanted.items():
            file.seek(starts[name])
            found[name] = torch.frombuffer(bytearray(file.read(one.nbytes)), dtype=one.dtype).view(one.shape)
    return found


def _on_meta(name: str, file: Any) -> Tensor:  # noqa: ANN401 - an open safetensors file has no type
    stored = file.get_slice(name)
    dtype = number_formats.SAFETENSORS.get(stored.get_dtype())
    if name == TRAINING_STEP and dtype in _INTEGERS and math.prod(stored.get_shape()) == 1:
        return torch.tensor(file.get_tensor(name))
    if dtype is None:
        raise ModelFileError(f"its {name} is stored as {stored.get_dtype()}: {number_formats.READABLE}")
    return torch.empty(stored.get_shape(), dtype=dtype, device="meta")


def _missing(path: Path) -> str | None:
    """Return what a safetensors file lacks that was cut off; None if it is whole, or no such file."""
    with regular_files.opened(path) as file:
        head = file.read(_HEAD.size)
        length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
        header = file.read(min(length, _MOST_LISTED_BYTES))
        present = file.seek(0, io.SEEK_END)
    if present < _HEAD.size + length:
        return f"is damaged, as after a download that broke off: only {present:,} bytes are there. Download it again"
    try:
        listed = {name: one["data_offsets"][1] for name, one in json.loads(header).items() if name != "__metadata__"}
        ends = {name: int(end) + _HEAD.size + length for name, end in listed.items()}
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return None
    if not ends or (whole := max(ends.values())) <= present:
        return None
    lost = [name for name, end in ends.items() if end > present]
    first = min(lost, key=ends.__getitem__)[:_LONGEST_NAME]
    return (
        f"is damaged, as after a download that broke off: {present:,} of {whole:,} bytes are there, and {len(lost):,} "
        f"of its {len(ends):,} weights are missing, first {first}. Download it again"
    )
