"""What the catalogue should know about a file of the LoRA family: its architecture, its sizes and its words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from worker.engine.files.lora import metadata
from worker.engine.files.lora.algorithms import Layer
from worker.engine.files.lora.names import TEXT_ENCODER, TEXT_ENCODER_2, UNET
from worker.engine.files.lora.reading import LoraFile

_OWN: Final = re.compile(r"_attn1_to_[qkv]$")  # as wide as its level
_CROSS: Final = re.compile(r"_attn2_to_[kv]$")  # reads texts
_TEXT: Final = re.compile(r"_self_attn_(?:[qkv]_proj|to_[qkv])$")  # as wide as the text encoder
_DEEP: Final = re.compile(r"_transformer_blocks_[1-9]")  # only SDXL has several transformers a block
_FIRST: Final = ("down_blocks_0_", "input_blocks_1_", "input_blocks_2_")  # blocks of the first level with attention
_FIRST_ATTENTION: Final = ("down_blocks_0_attentions_", "input_blocks_1_1_", "input_blocks_2_1_")  # SDXL has none
_FIRST_OF_XL: Final = ("down_blocks_1_", "input_blocks_3_", "input_blocks_4_", "input_blocks_5_")
_OF_XL: Final = 2  # channels of that level, by the first's
_BY_CONTEXT: Final = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl-refiner"}
_STATED: Final = {
    "sd_v1": "sd1", "sd_v2": "sd2", "sdxl": "sdxl", "stable-diffusion-v1": "sd1", "stable-diffusion-v2": "sd2",
    "stable-diffusion-xl": "sdxl",
}  # fmt: skip
_LISTED: Final = 3  # names of embeddings in a note


def architecture(file: LoraFile) -> str | None:
    """Return the architecture that a file was trained for, by its layers, else by its header; None if none tells."""
    context = _context_of_unet(file)
    if context in _BY_CONTEXT:
        return _BY_CONTEXT[context]
    if TEXT_ENCODER_2 in file.layers or any(map(_DEEP.search, file.layers.get(UNET, ()))):
        return "sdxl"
    has_first = any(key.startswith(_FIRST_ATTENTION) for key in file.layers.get(UNET, ()))
    if not has_first and any(layer.name.startswith("lora_te1_") for layer in file.every):
        return "sdxl"
    entries = file.metadata
    stated = entries.get("ss_base_model_version") or entries.get("modelspec.architecture") or ""
    by_header = next((name for start, name in _STATED.items() if stated.startswith(start)), None)
    return by_header or _by_projections(file) or _BY_CONTEXT.get(_text_width(file, TEXT_ENCODER) or 0)


def details(file: LoraFile, path: Path) -> dict[str, Any]:
    """Return the entries of the catalogue's details: shared.models.details.Details, as JSON."""
    found = {
        "form": file.form,
        "algorithm": file.algorithm,
        "rank": file.rank,
        "trigger_words": metadata.trigger_words(file.metadata),
        "alias": metadata.alias(file.metadata),
        "short_hash": metadata.short_hash(path, file.metadata),
        "width": width(file),
        "context": context(file),
    }
    return {name: value for name, value in found.items() if value}


def note(file: LoraFile) -> str | None:
    """Return what a file holds that is not used; None: nothing."""
    if not file.bundled:
        return None
    shown = ", ".join(file.bundled[:_LISTED])
    return f"brings {len(file.bundled)} embeddings of its own ({shown}), which are used only from files of their own"


def weights(file: LoraFile) -> dict[str, dict[str, Tensor]]:
    """Return the weights for each network, by names of their own."""
    return {
        name: {f"{key}.{part}": one for key, layer in layers.items() for part, one in layer.parameters.items()}
        for name, layers in file.layers.items()
    }


def width(file: LoraFile) -> int | None:
    """Return the channels of the U-Net's first level; None if no layer tells."""
    is_deep = architecture(file) == "sdxl"
    first = _FIRST_OF_XL if is_deep else _FIRST
    widths = {layer.sizes.outputs for key, layer in _matching(file, UNET, _OWN) if key.startswith(first)}
    found = min((one for one in widths if one), default=None)
    return found // _OF_XL if found and is_deep else found


def context(file: LoraFile) -> int | None:
    """Return the width of the texts that the U-Net reads; None if no layer tells."""
    if found := _context_of_unet(file):
        return found
    widths = [_text_width(file, name) for name in (TEXT_ENCODER, TEXT_ENCODER_2) if name in file.layers]
    is_whole = len(widths) == (2 if architecture(file) == "sdxl" else 1)
    return sum(one for one in widths if one) if is_whole and all(widths) else None


def _context_of_unet(file: LoraFile) -> int | None:
    return next((layer.sizes.inputs for _, layer in _matching(file, UNET, _CROSS) if layer.sizes.inputs), None)


def _text_width(file: LoraFile, network: str) -> int | None:
    return next((layer.sizes.outputs for _, layer in _matching(file, network, _TEXT) if layer.sizes.outputs), None)


def _by_projections(file: LoraFile) -> str | None:
    """Return the architecture by the layers around attention: Stable Diffusion 1 has convolutions there."""
    for key, layer in file.layers.get(UNET, {}).items():
        if key.endswith("_proj_in") and (down := layer.parameters.get("down")) is not None:
            return "sd1" if down.dim() == 4 else "sd2"
    return None


def _matching(file: LoraFile, network: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, Layer]]:
    return ((key, layer) for key, layer in file.layers.get(network, {}).items() if pattern.search(key))
