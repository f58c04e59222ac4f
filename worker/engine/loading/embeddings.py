"""Embeddings (textual inversion) in files, in all forms that programs write.

These are the web UI's (`string_to_param`, or `emb_params`), diffusers' (one tensor by the name of its word), those of
Stable Diffusion XL (`clip_l` and `clip_g`), and a tensor alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from shared.errors import ModelFileError
from shared.prompts.learned_words import MOST_VECTORS
from worker.engine.architectures.embeddings import Embedding, Vectors
from worker.engine.architectures.registry import ARCHITECTURES
from worker.engine.devices import Device
from worker.engine.files import number_formats, tensors
from worker.engine.files.pickles import EMBEDDING
from worker.engine.loading.upload import placed

_TEXT_ENCODERS: Final = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
_OF_OTHERS: Final = "t5xxl"  # of a text encoder that no checkpoint has here
_BY_WORD: Final = f"{EMBEDDING}."
_OF_NETWORKS: Final = (".weight", ".bias")  # endings of a tensor that stands for no word
_MOST_DIMENSIONS: Final = 2
_WIDTHS: Final = range(32, 1 + max(wide for one in ARCHITECTURES.values() for wide in one.text_widths.values()))
"""Of a token's vector."""


def load(path: Path, sha256: str, device: Device, dtype: torch.dtype) -> Embedding:
    """Return the embedding at `path`, resident on `device`. Raises ModelFileError.

    On a card the work goes on the current stream.
    """
    vectors = read(tensors.read(path))
    if not all(one.isfinite().all() for one in vectors.values()):
        raise ModelFileError("holds values that are not numbers: its training failed")
    return Embedding(sha256, placed(vectors, dtype, device))


def holds_one(weights: Mapping[str, Tensor]) -> bool:
    """Return whether these are the tensors of an embedding."""
    found = _named(weights)
    if not found or found.keys() <= {*_TEXT_ENCODERS, _OF_OTHERS} or any(map(_is_by_word, found)):
        return bool(found)
    (name, one), *others = found.items()
    return not others and not name.endswith(_OF_NETWORKS) and 1 <= one.dim() <= _MOST_DIMENSIONS and _is_wide(one)


def read(weights: Mapping[str, Tensor]) -> Vectors:
    """Return the vectors of an embedding's tensors. Raises ModelFileError."""
    if not holds_one(weights):
        raise ModelFileError("is not an embedding: it holds no vectors of a word")
    found = _named(weights)
    found = {name: one for name, one in found.items() if _is_by_word(name)} or found
    if _OF_OTHERS in found:
        raise ModelFileError("teaches its word to a T5 text encoder, which no checkpoint has that the farm reads")
    if found.keys() <= _TEXT_ENCODERS.keys():
        vectors = {name: _matrix(found[place]) for place, name in _TEXT_ENCODERS.items() if place in found}
    elif len(found) == 1:
        (one,) = map(_matrix, found.values())
        vectors = {_encoder_of(one.shape[1]): one}
    else:
        raise ModelFileError(f"teaches {len(found):,} words; an embedding of one word is read")
    if len({len(one) for one in vectors.values()}) > 1:
        counts = " and ".join(str(len(one)) for one in vectors.values())
        raise ModelFileError(f"has {counts} vectors for its text encoders, which read the same tokens")
    return vectors


def architecture(vectors: Vectors) -> str | None:
    """Return the architecture whose text encoders have these widths; None: no usual one."""
    widths = {name: one.shape[1] for name, one in vectors.items()}
    return next((name for name, one in ARCHITECTURES.items() if one.text_widths == widths), None)


def details(vectors: Vectors) -> dict[str, Any]:
    """Return what people see of an embedding, and what must fit the checkpoint."""
    return {
        "vectors": {name: len(one) for name, one in vectors.items()},
        "context": sum(one.shape[1] for one in vectors.values()),
    }


def _named(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one for name, one in weights.items() if name != tensors.TRAINING_STEP}


def _is_by_word(name: str) -> bool:
    return name.startswith(_BY_WORD)


def _is_wide(one: Tensor) -> bool:
    return one.shape[-1] in _WIDTHS


def _encoder_of(width: int) -> str:
    """Return the text encoder that reads the vectors of a file that names none: a usual one of this width."""
    alone = (one.text_widths for one in ARCHITECTURES.values() if len(one.text_widths) == 1)
    return next((name for widths in alone for name, wide in widths.items() if wide == width), "text_encoder")


def _matrix(one: Tensor) -> Tensor:
    """Return vectors [vectors, width]. Raises ModelFileError unless they can be those of a word."""
    shape = tuple(one.shape)
    if len(shape) not in (1, _MOST_DIMENSIONS) or not _is_wide(one):
        raise ModelFileError(
            f"its vectors have the shape {shape}; a word's are such as (4, 768): at most {_WIDTHS[-1]} wide"
        )
    number_formats.require_readable("tensor of vectors", one)
    matrix = one if one.dim() == _MOST_DIMENSIONS else one[None]
    if not 1 <= len(matrix) <= MOST_VECTORS:
        raise ModelFileError(
            f"has {len(matrix):,} vectors; a word has 1 to {MOST_VECTORS}, which a chunk of a prompt holds"
        )
    return matrix
