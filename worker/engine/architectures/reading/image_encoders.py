"""Image encoders of CLIP, under the names of transformers: alone, beside CLIP's text encoder, and in folders.

A single file has no configuration: it follows from the shapes of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Part
from worker.engine.files import folders, tensors
from worker.engine.files.config_bounds import Config, moderate, shown, whole
from worker.engine.files.descriptions import read_json
from worker.engine.files.kinds import OtherKind

_VISION: Final = "vision_model."
_PROJECTION: Final = "visual_projection.weight"
_CLASS: Final = f"{_VISION}embeddings.class_embedding"
_PATCHES: Final = f"{_VISION}embeddings.patch_embedding.weight"
_PLACES: Final = f"{_VISION}embeddings.position_embedding.weight"
_FIRST: Final = f"{_VISION}encoder.layers.0.mlp.fc1.weight"
_LAYERS: Final = f"{_VISION}encoder.layers."
_NUMBERS: Final = f"{_VISION}embeddings.position_ids"  # that older files store, and that follow from the sizes
_OF_CLIP: Final = ("text_model.", "text_projection.", "logit_scale", "logit_bias")
"""Beginnings of the names of CLIP's other weights, which are not read."""
_MODELS: Final = ("clip_vision_model", "clip")
"""The model types of a folder's configuration that hold an image encoder."""
_KNOWN: Final = {768: (12, "quick_gelu"), 1024: (16, "quick_gelu"), 1280: (16, "gelu"), 1664: (16, "gelu")}
"""Heads and activation by width, of the published ones: ViT-B and ViT-L of OpenAI, ViT-H and ViT-bigG of LAION."""
_HEAD: Final = 64  # usual width of a head
_LARGEST_SIDE: Final = 1024  # pixels
_MOST_PLACES: Final = 1024  # patches of a picture; the largest published ones have 576
_READ: Final = (
    "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads", "num_channels",
    "image_size", "patch_size", "hidden_act", "layer_norm_eps",
)  # fmt: skip


def is_one(path: Path, weights: Mapping[str, object] | None) -> bool:
    """Return whether there is an image encoder at `path`: a file with these weights, or a folder if they are None.

    Any folder of transformers counts as one unless it is a whole checkpoint: no other network comes in such a folder.
    """
    if weights is not None:
        return any(name.startswith(_VISION) for name in weights)
    config = path / "config.json"
    is_alone = config.exists() and not (path / "model_index.json").exists()
    return is_alone and "model_type" in read_json(config)


def read(path: Path, where: tensors.Where = "cpu") -> Part:
    """Return the image encoder at `path`, a single file or a folder. Raises ModelFileError."""
    if not path.is_dir():
        return of_weights(tensors.read(path, where))
    config = read_json(path / "config.json")
    if (kind := config.get("model_type")) not in _MODELS:
        raise ModelFileError(f"its config.json is that of another network than CLIP's image encoder ({shown(kind)})")
    return Part(_checked(_stated(config)), _own(folders.weights(path, where)))


def of_weights(weights: Mapping[str, Tensor]) -> Part:
    """Return the image encoder with these weights of a single file. Raises ModelFileError."""
    found = _own(weights)
    return Part(_checked(_by_shapes(found)), found)


def details(part: Part) -> dict[str, Any]:
    """Return the widths of the features that IP-Adapters read."""
    return {"projected": part.config["projection_dim"], "hidden": part.config["hidden_size"]}


def note(part: Part) -> str | None:
    """Return what was assumed of a single file because no shape shows it; None: nothing."""
    width = part.config["hidden_size"]
    if width in _KNOWN:
        return None
    return (
        f"no published encoder is {width} wide, so its heads are taken to be {_HEAD} wide: a folder with its "
        "config.json states them"
    )


def _own(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the image encoder. Raises OtherKind for another one than CLIP's."""
    if _CLASS not in weights:
        raise OtherKind("an image encoder of another form than CLIP's")
    return {name: one for name, one in weights.items() if name != _NUMBERS and not name.startswith(_OF_CLIP)}


def _by_shapes(weights: Mapping[str, Tensor]) -> Config:
    width, channels, patch, _ = _shape(weights, _PATCHES, 4)
    places, _ = _shape(weights, _PLACES, 2)
    heads, activation = _KNOWN.get(width, (max(1, width // _HEAD), "quick_gelu"))
    return {
        "hidden_size": width,
        "intermediate_size": _shape(weights, _FIRST, 2)[0],
        "projection_dim": _shape(weights, _PROJECTION, 2)[0],
        "num_hidden_layers": len({one[len(_LAYERS) :].partition(".")[0] for one in weights if one.startswith(_LAYERS)}),
        "num_attention_heads": heads,
        "num_channels": channels,
        "image_size": math.isqrt(places - 1) * patch,
        "patch_size": patch,
        "hidden_act": activation,
    }


def _stated(config: Mapping[str, Any]) -> Config:
    """Return what a folder's configuration states about the image encoder, alone or as a part of CLIP's."""
    inner = config.get("vision_config")
    if config.get("model_type") == "clip" and isinstance(inner, Mapping):
        config = {**inner, **{name: config[name] for name in ("projection_dim",) if name in config}}
    return {name: config[name] for name in _READ if name in config}


def _checked(config: Config) -> Config:
    """Return a configuration of which a network is built and called in moments. Raises ModelFileError."""
    usual = {"hidden_size": 768, "projection_dim": 512, "image_size": 224, "patch_size": 32, "num_hidden_layers": 12}
    config = usual | config
    side = whole("image_size", config["image_size"], 1, _LARGEST_SIDE)
    patch = whole("patch_size", config["patch_size"], 1, side)
    if (side // patch) ** 2 > _MOST_PLACES:
        raise ModelFileError(f"reads a picture as {(side // patch) ** 2:,} patches; at most {_MOST_PLACES:,} are read")
    if config.get("num_channels", 3) != 3:
        raise ModelFileError(f"its num_channels is {shown(config['num_channels'])}; 3 is supported")
    if config.get("hidden_act", "quick_gelu") not in ("quick_gelu", "gelu"):
        raise ModelFileError(f"its hidden_act is {shown(config['hidden_act'])}; quick_gelu and gelu are supported")
    whole("num_hidden_layers", config["num_hidden_layers"], 2, 48)  # the last but one is read
    return moderate(config)


def _shape(weights: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    weight = weights.get(name)
    if weight is None or weight.dim() != dimensions or not weight.numel():
        raise ModelFileError(f"the image encoder's {name} is missing or misshapen")
    return tuple(weight.shape)
