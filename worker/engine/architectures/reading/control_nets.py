"""Control nets from the files that people have: under the original names, or diffusers', and in diffusers' folders.

A single file has no configuration: it follows from the shapes of the weights. Imports diffusers, which takes seconds:
imported when a file is read, not before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from diffusers.loaders import single_file_utils as original
from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Part
from worker.engine.architectures.reading import sd1, unet
from worker.engine.architectures.reading.names import renamed
from worker.engine.architectures.reading.original_config import within
from worker.engine.architectures.sd1 import SD1
from worker.engine.architectures.sd2 import SD2
from worker.engine.architectures.sdxl import SDXL
from worker.engine.files import folders, tensors
from worker.engine.files.config_bounds import Config, moderate, shown, whole
from worker.engine.files.descriptions import read_json, read_yaml
from worker.engine.files.kinds import OtherKind

PREFIX: Final = "control_model."
CLASSES: Final = ("ControlNetModel", "ControlNetUnionModel")
"""Diffusers' classes of control nets, by which a folder's configuration is known."""

_OTHERS: Final = {
    "lora_controlnet": "a Control-LoRA",
    "difference": "a difference of control nets",
}
_EMBEDDING: Final = "controlnet_cond_embedding."
_HINTS: Final = ("input_hint_block.", _EMBEDDING)
_SIZES: Final = {f"add_embedding.linear_{layer + 1}": f"label_emb.0.{2 * layer}" for layer in range(2)}
_FIGURE_WIDTH: Final = 256  # of the embedding of one figure about the picture's size, or of a kind of picture
_BLOCKS: Final = {True: "CrossAttnDownBlock2D", False: "DownBlock2D"}  # by whether they read the text
_PLAIN: Final = ("class_embed_type", "num_class_embeds", "encoder_hid_dim", "encoder_hid_dim_type")
_RIGHT: Final[Mapping[str, tuple[object, ...]]] = {  # values of a configuration; the first is usual
    "in_channels": (4,),
    "conditioning_channels": (3,),
    "addition_embed_type": (None, "text_time"),
    "controlnet_conditioning_channel_order": ("rgb", "bgr"),
}
_MOST: Final = 8  # levels, and layers of each


def is_one(path: Path, weights: Mapping[str, object] | None) -> bool:
    """Return whether there is a control net at `path`: a file with these weights, or a folder if they are None.

    It may lie beside the checkpoint that it was trained with.
    """
    if weights is not None:
        return any(name.removeprefix(PREFIX).startswith(_HINTS) for name in weights)
    config = path / "config.json"
    return config.exists() and read_json(config).get("_class_name") in CLASSES


def read(path: Path, where: tensors.Where = "cpu") -> Part:
    """Return the control net at `path`, a single file or a folder. Raises ModelFileError."""
    if path.is_dir():
        return _in_rgb(folders.weights(path, where), _checked(read_json(path / "config.json")))
    return of_file(path, tensors.read(path, where))


def of_file(path: Path, weights: Mapping[str, Tensor]) -> Part:
    """Return the control net in the single file at `path`, with these weights. Raises ModelFileError."""
    for marker, what in _OTHERS.items():
        if any(name.startswith(marker) for name in weights):
            raise OtherKind(what)
    if any(name.startswith(PREFIX) for name in weights):
        weights = {name.removeprefix(PREFIX): one for name, one in weights.items() if name.startswith(PREFIX)}
    if any(name.startswith("input_blocks.") for name in weights):
        weights = renamed(_converted, weights, {"layers_per_block": _original_layers(weights)})
    return Part(_checked(_by_shapes(weights) | _stated(path)), weights)


def architecture(part: Part) -> str:
    """Return the name of the architecture whose U-Nets a control net steers."""
    if part.config.get("addition_embed_type"):
        return SDXL.name
    return SD2.name if part.config.get("use_linear_projection") else SD1.name


def details(part: Part) -> dict[str, object]:
    """Return what has to fit a checkpoint, and how many kinds of pictures a union knows."""
    found: dict[str, object] = {"width": part.config["block_out_channels"][0]}
    if reads_text(part.config):
        found["context"] = part.config["cross_attention_dim"]
    return found | ({"types": part.config["num_control_type"]} if "task_embedding" in part.weights else {})


def reads_text(config: Mapping[str, Any]) -> bool:
    """Return whether a net with this configuration reads the text; the smallest ones for SDXL do not."""
    return _BLOCKS[True] in config["down_block_types"]


def description(path: Path) -> str | None:
    """Return the digest of what a .yaml adds to the weights beside it; None: nothing. Raises ModelFileError."""
    stated = _stated(path)
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest() if stated else None


def _stated(path: Path) -> Config:
    """Return what the .yaml beside the file at `path` says that no shape shows. Raises ModelFileError."""
    beside = path.with_suffix(".yaml")
    if not beside.exists():
        return {}
    said = within(read_yaml(beside), "model", "params", "control_stage_config", "params")
    if not isinstance(said, Mapping):
        raise ModelFileError(f"{beside.name} beside it describes no control net (model: params: control_stage_config:)")
    stated: Config = {}
    if (heads := said.get("num_heads", -1)) != -1:
        stated["attention_head_dim"] = whole("number of heads", heads, 1, 64)
    if said.get("global_average_pooling") is True:
        stated["global_pool_conditions"] = True
    return stated


def _converted(shapes: dict[str, Tensor], config: Config) -> dict[str, Tensor | None]:
    """Return the weights under diffusers' names; its converter leaves out what reads the picture's size."""
    ends = ("weight", "bias")
    sizes = {f"{new}.{end}": shapes.get(f"{old}.{end}") for new, old in _SIZES.items() for end in ends}
    return {**original.convert_controlnet_checkpoint(shapes, config), **sizes}


def _original_layers(weights: Mapping[str, Tensor]) -> int:
    """Return how many layers each level has: the first that halves a side ends the first level."""
    halving = (number for number in range(1, _MOST) if f"input_blocks.{number}.0.op.weight" in weights)
    return next(halving, 2) - 1


def _by_shapes(weights: Mapping[str, Tensor]) -> Config:
    """Return the configuration of a net under diffusers' names, by the shapes of its weights. Raises ModelFileError."""
    absent = (level for level in range(_MOST) if f"down_blocks.{level}.resnets.0.conv1.weight" not in weights)
    levels = range(next(absent, _MOST))
    widths = [_shape(weights, f"down_blocks.{level}.resnets.0.conv1.weight")[0] for level in levels]
    depths = [_transformers(weights, f"down_blocks.{level}.") for level in levels]
    if not levels:
        raise ModelFileError("is a control net without its way down (down_blocks.*, or input_blocks.*)")
    middle = _transformers(weights, "mid_block.")
    config = {
        "in_channels": _shape(weights, "conv_in.weight")[1],
        "block_out_channels": widths,
        "down_block_types": [_BLOCKS[depth > 0] for depth in depths],
        "layers_per_block": sum(f"down_blocks.0.resnets.{at}.conv1.weight" in weights for at in range(_MOST)),
        "transformer_layers_per_block": [depth or middle or 1 for depth in depths],  # the last is the middle's too
        **_hints(weights),
        **_sizes(weights),
        **(_text(weights, widths) if middle else {}),
    }
    if "task_embedding" in weights:
        return config | _union(weights)
    return config | {"mid_block_type": "UNetMidBlock2DCrossAttn" if middle else "UNetMidBlock2D"}


def _transformers(weights: Mapping[str, Tensor], block: str) -> int:
    """Return how many transformers each layer of a block has."""
    prefix = f"{block}attentions.0.transformer_blocks."
    return len({name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)})


def _hints(weights: Mapping[str, Tensor]) -> Config:
    """Return the configuration of the layers that embed pictures."""
    first = _shape(weights, f"{_EMBEDDING}conv_in.weight")
    names = (f"{_EMBEDDING}blocks.{2 * level + 1}.weight" for level in range(_MOST))
    return {
        "conditioning_channels": first[1],
        "conditioning_embedding_out_channels": [first[0], *(weights[one].shape[0] for one in names if one in weights)],
    }


def _text(weights: Mapping[str, Tensor], widths: Sequence[int]) -> Config:
    """Return the configuration of the attention to the text."""
    inner = "mid_block.attentions.0.proj_in.weight"
    is_linear = len(_shape(weights, inner)) == 2
    heads = [max(1, width // unet.HEAD_WIDTH) for width in widths] if is_linear else sd1.usual_heads(widths[0])
    return {
        "cross_attention_dim": unet.context_width(weights),
        "use_linear_projection": is_linear,
        "attention_head_dim": heads,  # their number
    }


def _sizes(weights: Mapping[str, Tensor]) -> Config:
    """Return the configuration of the layers that read a pooled text and the picture's size."""
    first = "add_embedding.linear_1.weight"
    if first not in weights:
        return {}
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _FIGURE_WIDTH,
        "projection_class_embeddings_input_dim": _shape(weights, first)[1],
    }


def _union(weights: Mapping[str, Tensor]) -> Config:
    """Return the configuration of the layers that tell kinds of pictures apart."""
    types, width = _shape(weights, "task_embedding")
    blocks = {name.split(".")[1] for name in weights if name.startswith("transformer_layes.")}
    return {
        "num_control_type": types,
        "num_trans_channel": width,
        "num_trans_layer": len(blocks),
        "num_proj_channel": _shape(weights, "spatial_ch_projs.weight")[0],
        "addition_time_embed_dim": _shape(weights, "control_add_embedding.linear_1.weight")[1] // types,
    }


def _checked(config: Config) -> Config:
    """Return a configuration of which a net is built in moments, and which this engine calls. Raises ModelFileError."""
    for name in _PLAIN:
        if (value := config.get(name)) is not None:
            raise ModelFileError(f"its {name} is {shown(value)}: only control nets without it are supported")
    for name, right in _RIGHT.items():
        if (value := config.get(name, right[0])) not in right:
            raise ModelFileError(f"its {name} is {shown(value)}; {shown(right[0])} is supported")
    blocks = config.get("down_block_types", [])
    if not isinstance(blocks, list) or any(block not in _BLOCKS.values() for block in blocks):
        raise ModelFileError("its down_block_types are not those of Stable Diffusion's control nets")
    return moderate({name: value for name, value in config.items() if not name.startswith("_")})


def _in_rgb(weights: Mapping[str, Tensor], config: Config) -> Part:
    """Return a net that reads red, green and blue, also if it was trained with blue first."""
    if config.get("controlnet_conditioning_channel_order") != "bgr":
        return Part(config, weights)
    first = f"{_EMBEDDING}conv_in.weight"
    _shape(weights, first)
    return Part(config | {"controlnet_conditioning_channel_order": "rgb"}, {**weights, first: weights[first].flip(1)})


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """Return the shape of a weight that has at least two dimensions. Raises ModelFileError."""
    weight = weights.get(name)
    if weight is None or weight.dim() < 2 or not weight.numel():
        raise ModelFileError(f"the control net's {name} is missing or misshapen")
    return tuple(weight.shape)
