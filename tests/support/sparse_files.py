"""Model files of full size that take no room on the disk: a true header, and holes in the place of the weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

_FORMATS: Final = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


def write(path: Path, weights: Mapping[str, Tensor]) -> Path:
    """Write a safetensors file of weights of these shapes and number formats, which all read as 0; return `path`."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, weight in sorted(weights.items()):
        begin, end = end, end + weight.nbytes
        header[name] = {"dtype": _FORMATS[weight.dtype], "shape": [*weight.shape], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the weights are aligned
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(file.tell() + end)
    return path
