"""A network's weights in diffusers' folders: in one file or several, in one of several variants."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.files import descriptions, number_formats, tensors

_STEMS: Final = ("diffusion_pytorch_model", "model", "pytorch_model")
_VARIANTS: Final = ("", ".fp32", ".fp16", ".bf16", ".ema", ".non_ema")  # the plain file first
_MOST_FILES: Final = 64  # of one network
_MOST_INDEX_BYTES: Final = 2**22  # of the list of a network's files
_FILE: Final = re.compile(r"\w[\w.-]{0,199}", re.ASCII)
_SHARD: Final = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")


def weights(folder: Path, where: tensors.Where) -> dict[str, Tensor]:
    """Return the weights of one network: first safetensors, first the plain variant. Raises ModelFileError."""
    for suffix in (".safetensors", ".bin"):
        for variant in _VARIANTS:
            for stem in _STEMS:
                if (whole := folder / f"{stem}{variant}{suffix}").exists():
                    return tensors.read(whole, where)
                for index in (f"{stem}{variant}{suffix}.index.json", f"{stem}{suffix}.index{variant}.json"):
                    if (folder / index).exists():
                        return _sharded(folder / index, where)
    if shard := next(filter(None, map(_SHARD.fullmatch, sorted(one.name for one in folder.glob("*-of-*")))), None):
        index = f"{shard[1]}{shard[2]}.index.json"
        raise ModelFileError(f"{folder.name}/ holds {shard[0]}, but not {index}, which lists the files of that network")
    raise ModelFileError(f"{folder.name}/ holds no weights")


def _sharded(index: Path, where: tensors.Where) -> dict[str, Tensor]:
    """Return the weights of a network from the files that `index` lists."""
    listed = descriptions.read_json(index, _MOST_INDEX_BYTES).get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
    if not names or len(names) > _MOST_FILES or not all(map(_FILE.fullmatch, names)):
        raise ModelFileError(f"{index.parent.name}/{index.name} lists no files of that folder")
    if missing := [name for name in names if not (index.parent / name).exists()]:
        raise ModelFileError(f"{index.parent.name}/{missing[0]} is missing, which {index.name} lists")
    found: dict[str, Tensor] = {}
    for name in names:
        found |= tensors.stored(index.parent / name, where)
    return number_formats.plain(found)
