"""Checkpoints in the forms that people have, read by the architecture that they belong to.

Imports diffusers, which takes seconds: imported when a checkpoint is read, not before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from worker.engine.architectures.parts import Parts
from worker.engine.architectures.reading import folder
from worker.engine.architectures.reading.reader import Reader
from worker.engine.architectures.reading.sd1 import SD1Reader
from worker.engine.architectures.reading.sd2 import SD2Reader
from worker.engine.architectures.reading.sdxl import SDXLReader, SDXLRefinerReader
from worker.engine.files import kinds, tensors
from worker.engine.files.kinds import OtherKind

READERS: Final[tuple[Reader, ...]] = (SD1Reader(), SD2Reader(), SDXLReader(), SDXLRefinerReader())
"""Of several that a damaged file resembles equally, the first reads it, and says what is missing."""
_SHARD: Final = re.compile(r"-(\d{5})-of-(\d{5})$")


def read(path: Path, where: tensors.Where = "cpu") -> Parts:
    """Return the parts of a checkpoint: a single file in the original layout or a diffusers folder.

    Raises ModelFileError with the reason if it cannot be used.
    """
    if not path.is_dir():
        return of_file(path, tensors.read(path, where))
    name = folder.architecture(path)
    return folder.read(path, next(one for one in READERS if one.architecture.name == name), where)


def of_file(path: Path, weights: Mapping[str, Tensor]) -> Parts:
    """Return the parts of the checkpoint at `path` with these weights. Raises ModelFileError."""
    if shard := _SHARD.search(path.stem):
        raise OtherKind(
            f"part {int(shard[1])} of {int(shard[2])} of a model, which are read only in diffusers' folders"
        )
    kinds.require_known(weights)
    return max(READERS, key=lambda reader: reader.likeness(weights)).of_file(path, weights)
