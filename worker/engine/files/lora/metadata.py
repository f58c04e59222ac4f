"""What the header of a LoRA's file says to people and to programs. Strangers wrote it, so it is read within bounds."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open

from shared.models import regular_files
from worker.engine.files import tensors

_MOST_TEXT: Final = 2**22  # letters of an entry that is parsed
_MOST_WORDS: Final = 32
_LONGEST_WORD: Final = 80
_HASH: Final = re.compile(r"[0-9a-fA-F]{12,64}")
_HASH_DIGITS: Final = 12  # that other programs write into "Lora hashes"
_MOST_HASHED_BYTES: Final = 2**32
_PIECE_BYTES: Final = 2**20
_HEAD: Final = struct.Struct("<Q")
_PEFT: Final = "lora_adapter_metadata"

Metadata = Mapping[str, str]


def read(path: Path) -> Metadata:
    """Return the entries of the header of the file at `path`, which was read before; none if it has no header."""
    if not _is_safetensors(path):
        return {}
    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def trigger_words(metadata: Metadata) -> list[str]:
    """Return at most 32 words that the adapter was trained with: a stated phrase first, then the commonest."""
    counts: dict[str, float] = {}
    for tags in _object(metadata.get("ss_tag_frequency")).values():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int | float) and math.isfinite(count):
                counts[tag] = counts.get(tag, 0) + count
    commonest = sorted(counts, key=lambda tag: (-counts[tag], tag))
    words = map(_plain, [metadata.get("modelspec.trigger_phrase", ""), *commonest])
    return list(dict.fromkeys(filter(None, words)))[:_MOST_WORDS]


def alias(metadata: Metadata) -> str | None:
    """Return the name under which it was trained."""
    return _plain(metadata.get("ss_output_name", "")) or None


def short_hash(path: Path, metadata: Metadata) -> str | None:
    """Return the digits by which other programs name a file: what its trainer stated, else those of the bytes behind
    the header of a safetensors file. None for a pickle, and for a file that is too large to hash here.
    """
    stated = metadata.get("sshs_model_hash", "")
    if _HASH.fullmatch(stated):
        return stated[:_HASH_DIGITS].lower()
    if not _is_safetensors(path) or path.stat().st_size > _MOST_HASHED_BYTES:
        return None
    with regular_files.opened(path) as file:
        file.seek(_HEAD.size + _HEAD.unpack(file.read(_HEAD.size))[0])
        digest = hashlib.sha256()
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()[:_HASH_DIGITS]


def peft(metadata: Metadata, network: str) -> Mapping[str, Any]:
    """Return what diffusers recorded of peft's configuration for `network`, which holds the alphas."""
    prefix = f"{network}."
    stated = _object(metadata.get(_PEFT))
    return {key.removeprefix(prefix): value for key, value in stated.items() if key.startswith(prefix)}


def peft_alpha(config: Mapping[str, Any], layer: str) -> float | None:
    """Return the alpha of `layer`, its path with underscores, by peft's configuration; None if it states none."""
    own = config.get("alpha_pattern")
    for path, alpha in own.items() if isinstance(own, dict) else ():
        name = path.strip("^$").replace("\\", "").replace(".", "_")
        if name and f"_{layer}".endswith(f"_{name}"):
            return _number(alpha)
    return _number(config.get("lora_alpha"))


def _is_safetensors(path: Path) -> bool:
    with regular_files.opened(path) as file:
        return tensors.form(path, file) == "safetensors"


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _object(text: str | None) -> dict[str, Any]:
    """Return the JSON object in `text`; an empty one if it holds none."""
    try:
        found = json.loads(text) if text and len(text) <= _MOST_TEXT else None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain(text: str) -> str:
    """Return a word for the catalogue: one line of letters that can be shown, or nothing if it is too long."""
    word = " ".join(text.split())
    return word if len(word) <= _LONGEST_WORD and word.isprintable() else ""
