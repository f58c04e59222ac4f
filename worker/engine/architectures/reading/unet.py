"""U-Nets of the original layout: their configuration, by the shapes of their weights, and diffusers' names for these.

Imports diffusers, which takes seconds: imported when a checkpoint is read, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from diffusers.loaders import single_file_utils as original
from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Part
from worker.engine.architectures.reading.names import renamed
from worker.engine.files.config_bounds import Config, moderate

PREFIX: Final = "model.diffusion_model."
_SIZES: Final = f"{PREFIX}label_emb.0.0.weight"  # reads the pooled text and the figures about the picture's size
HEAD_WIDTH: Final = 64
"""Of every U-Net but Stable Diffusion 1's, which has eight heads a layer."""
GUIDED: Final = "its guidance embedding is not used"
"""The note on a U-Net that was distilled to read the strength of guidance (LCM): it works without."""
_FIRST: Final = f"{PREFIX}input_blocks.0.0.weight"
_GUIDANCE: Final = f"{PREFIX}time_embed.cond_proj.weight"
_GUIDANCE_IN_FOLDERS: Final = "time_embedding.cond_proj.weight"
_MIDDLE: Final = ("0.in_layers.2.weight", "1.transformer_blocks.0.norm1.weight", "2.in_layers.2.weight")
_MOST_BLOCKS: Final = 64


class _Level(NamedTuple):
    """One level of the way down."""

    width: int
    depths: tuple[int, ...]  # transformers of each of its blocks; 0: no attention


def channels(weights: Mapping[str, Tensor]) -> int:
    """Return how many channels the first layer of a U-Net takes. Raises ModelFileError."""
    return first_layer(weights)[0]


def first_layer(weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return how many channels the first layer of a U-Net takes and gives. Raises ModelFileError."""
    first = weights.get(_FIRST)
    if first is None or first.dim() != 4 or not first.numel():
        raise ModelFileError(f"its U-Net's first layer ({_FIRST}) is missing or misshapen")
    return first.shape[1], first.shape[0]


def reads_sizes(weights: Mapping[str, Tensor]) -> bool:
    """Return whether a U-Net reads a vector beside the text, such as the figures about the picture's size."""
    return _SIZES in weights


def context_width(weights: Mapping[str, Tensor]) -> int:
    """Return the width of the texts that a U-Net reads. Raises ModelFileError."""
    keys = next((weight for name, weight in weights.items() if name.endswith(".attn2.to_k.weight")), None)
    if keys is None or keys.dim() != 2:
        raise ModelFileError(f"its U-Net reads no text: {PREFIX}*.attn2.to_k.weight is missing or misshapen")
    return keys.shape[1]


def part(weights: Mapping[str, Tensor], config: Config) -> Part:
    """Return the U-Net of a checkpoint under diffusers' names. Raises ModelFileError."""
    own = {name: weight for name, weight in weights.items() if name.startswith(PREFIX) and name != _GUIDANCE}
    return Part(config, renamed(original.convert_ldm_unet_checkpoint, own, config))


def of_folder(weights: Mapping[str, Tensor], config: Config) -> Part:
    """Return a folder's U-Net."""
    own = {name: weight for name, weight in weights.items() if name != _GUIDANCE_IN_FOLDERS}
    return Part(config | {"time_cond_proj_dim": None}, own)


def note(weights: Mapping[str, Tensor]) -> str | None:
    """Return what people should know about the U-Net of a single file."""
    return GUIDED if _GUIDANCE in weights else None


def config(weights: Mapping[str, Tensor]) -> Config:
    """Return the configuration of a U-Net whose heads are 64 wide, by its weights. Raises ModelFileError."""
    own = {name.removeprefix(PREFIX): weight for name, weight in weights.items() if name.startswith(PREFIX)}
    levels = _levels(own)
    depths, middle = [level.depths[0] for level in levels], _middle(own)
    if any(len(set(level.depths)) > 1 for level in levels) or (depths[-1] and middle != depths[-1]):
        raise ModelFileError("its U-Net's blocks have unequal depths, as distilled ones do (SSD-1B): not supported")
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths]
    widths = [level.width for level in levels]
    if odd := [width for width, depth in zip(widths, depths, strict=True) if depth and width % HEAD_WIDTH]:
        raise ModelFileError(
            f"its U-Net has a level {odd[0]} wide; heads are {HEAD_WIDTH} wide, which does not divide it"
        )
    return moderate(
        {
            "in_channels": channels(weights),
            "out_channels": _shape(own, "out.2.weight")[0],
            "block_out_channels": widths,
            "down_block_types": down,
            "up_block_types": [block.replace("Down", "Up") for block in reversed(down)],
            "layers_per_block": len(levels[0].depths),
            "transformer_layers_per_block": [depth or middle or 1 for depth in depths],  # the last is the middle's too
            "attention_head_dim": [max(1, width // HEAD_WIDTH) for width in widths],  # their number
            **_attention(own),
        }
    )


def size_config(weights: Mapping[str, Tensor], pooled_width: int, figures: int) -> Config:
    """Return the configuration of the layers that read a pooled text and so many figures. Raises ModelFileError."""
    width = _shape(weights, _SIZES)[-1]
    if width <= pooled_width or (width - pooled_width) % figures:
        raise ModelFileError(
            f"its U-Net reads a vector of {width}, which does not hold a text of {pooled_width} and {figures} figures"
        )
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (width - pooled_width) // figures,
        "projection_class_embeddings_input_dim": width,
    }


def _levels(weights: Mapping[str, Tensor]) -> list[_Level]:
    """Return the levels of the way down: each but the last ends with a layer that halves a side."""
    levels, depths, width = [], list[int](), 0
    for number in range(1, _MOST_BLOCKS):
        block = f"input_blocks.{number}."
        if f"{block}0.op.weight" in weights:
            levels.append(_Level(width, tuple(depths)))
            depths = []
        elif f"{block}0.out_layers.3.weight" in weights:
            width = _shape(weights, f"{block}0.out_layers.3.weight")[0]
            depths.append(_transformers(weights, f"{block}1."))
        else:
            break
    levels.append(_Level(width, tuple(depths)))
    if not all(level.depths for level in levels) or len({len(level.depths) for level in levels}) > 1:
        raise ModelFileError(f"its U-Net is incomplete: {PREFIX}input_blocks are not levels of equal length")
    return levels


def _middle(weights: Mapping[str, Tensor]) -> int:
    """Return how many transformers the middle block has; a distilled one (SSD-1B) may be its first layers alone."""
    layers = {name.split(".")[1] for name in weights if name.startswith("middle_block.")}
    for name in _MIDDLE[: 1 if layers == {"0"} else None]:
        _shape(weights, f"middle_block.{name}")
    return _transformers(weights, "middle_block.1.")


def _transformers(weights: Mapping[str, Tensor], block: str) -> int:
    """Return how many transformers a block has."""
    prefix = f"{block}transformer_blocks."
    return len({name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)})


def _attention(weights: Mapping[str, Tensor]) -> Config:
    """Return what the layers of attention have in common."""
    inner = next((weight for name, weight in weights.items() if name.endswith(".1.proj_in.weight")), None)
    return {
        "cross_attention_dim": context_width(weights),
        "use_linear_projection": inner is not None and inner.dim() == 2,
    }


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """Return the shape of a weight that has one. Raises ModelFileError."""
    weight = weights.get(name)
    if weight is None or not weight.dim() or not weight.numel():
        raise ModelFileError(f"its U-Net's {name} is missing or misshapen")
    return tuple(weight.shape)
