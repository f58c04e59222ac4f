"""The layers of a network by the names that files of adapters have for them, with underscores for points."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from torch import nn

from worker.engine.files.lora.names import UNET

_BLOCK: Final = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_STEMS: Final = {  # names of the original layout, by diffusers' beginnings
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_LEAVES: Final = {  # of a block without attention
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OLD_PROJECTIONS: Final = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


def by_name(network: nn.Module, name: str) -> Mapping[str, str]:
    """Return the path of each layer of `network`, by diffusers' `name` for it, by all names that files have for it."""
    paths = [path for path, module in network.named_modules() if path and any(True for _ in module.parameters(False))]
    every = _of_unet(paths) if name == UNET else _of_text_encoder(paths)
    return {other.replace(".", "_"): path for other, path in every}


def _of_unet(paths: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each layer of a U-Net by its own name, the original layout's and that of diffusers' old files."""
    blocks = len({path.split(".")[3] for path in paths if path.startswith("down_blocks.0.resnets.")})
    attentive = {path.split(".")[1] for path in paths if path.startswith("up_blocks.") and ".attentions." in path}
    for path in paths:
        yield path, path
        yield _original(path, blocks, attentive), path
        if path.endswith(".to_out.0"):
            yield path.removesuffix(".0"), path


def _original(path: str, blocks: int, attentive: set[str]) -> str:
    """Return the name of a layer in the original layout, which numbers all blocks of a side in one row."""
    if found := _BLOCK.fullmatch(path):
        way, level, kind, place, rest = found.groups()
        row = int(level) * (blocks + 1)
        if kind == "downsamplers":
            return f"input_blocks.{row + blocks + 1}.0.op"
        if kind == "upsamplers":
            return f"output_blocks.{row + blocks}.{2 if level in attentive else 1}.conv"
        side = f"input_blocks.{row + int(place) + 1}" if way == "down" else f"output_blocks.{row + int(place)}"
        return f"{side}.0.{_LEAVES.get(rest, rest)}" if kind == "resnets" else f"{side}.1.{rest}"
    stem = next((stem for stem in _STEMS if path == stem or path.startswith(f"{stem}.")), None)
    if stem is None:
        return path
    rest = path.removeprefix(stem).removeprefix(".")
    return ".".join(filter(None, (_STEMS[stem], _LEAVES.get(rest, rest))))


def _of_text_encoder(paths: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each layer of a text encoder by its own name without `text_model.`, and by diffusers' old one."""
    for path in paths:
        own = path.removeprefix("text_model.")
        yield own, path
        layer, _, projection = own.rpartition(".")
        if projection in _OLD_PROJECTIONS:
            yield f"{layer}.{_OLD_PROJECTIONS[projection]}", path
