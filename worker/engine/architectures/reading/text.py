"""Text encoders of single files and folders, under transformers' names: OpenAI's CLIP, and OpenCLIP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Part
from worker.engine.files import config_bounds as figures
from worker.engine.files.config_bounds import LARGEST, Config, moderate, shown

HEAD_WIDTH: Final = 64
"""Of every CLIP."""
_NOT_USED: Final = ("position_ids", "text_projection.weight", "visual_projection.weight", "logit_scale", "attn_mask")
"""Weights of a whole CLIP, or numbered again after loading."""
_PICTURES: Final = ("vision_model.", "visual.")  # prefixes of a whole CLIP's other half
_MODEL: Final = "text_model."
_DEFINING: Final = ("embeddings.token_embedding.weight", "encoder.layers.0.self_attn.q_proj.weight")
"""Weights that no leftover of a merge has; a damaged file has one of them, as a rule."""
_OPEN_CLIP_DEFINING: Final = ("token_embedding.weight", "transformer.resblocks.0.attn.in_proj_weight")
_PROJECTION: Final = "text_projection.weight"
_FIGURES: Final = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "projection_dim", "hidden_act", "layer_norm_eps",
)  # fmt: skip
_ACTIVATIONS: Final = ("gelu", "quick_gelu")
_OPEN_CLIP: Final = {  # its names of what is not in a layer -> transformers'
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OPEN_CLIP_LAYER: Final = {  # names of what is in a layer
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}  # fmt: skip
_OPEN_CLIP_LAYERS: Final = "transformer.resblocks."
_OPEN_CLIP_H: Final = (1024, 23)  # width, and the layers that are read


@dataclass(frozen=True)
class ClipText:
    """A text encoder of OpenAI's CLIP in a single file, whose names begin with `prefix`."""

    prefix: str

    def part(self, weights: Mapping[str, Tensor]) -> Part:
        """Return it under transformers' names. Raises ModelFileError."""
        named = plain({name.removeprefix(self.prefix): one for name, one in weights.items() if self.holds(name)})
        return Part(_config(named, "quick_gelu"), named)

    def holds(self, name: str) -> bool:
        """Return whether a weight of this name is one of this encoder's."""
        return name.startswith(self.prefix)

    def defined(self, weights: Mapping[str, Tensor]) -> bool:
        """Return whether a file holds more of this encoder than leftovers."""
        return any(f"{self.prefix}{model}{name}" in weights for model in ("", _MODEL) for name in _DEFINING)


@dataclass(frozen=True)
class OpenClipText:
    """A text encoder of OpenCLIP in a single file, whose names begin with `prefix`.

    Its projection is read if `has_projection`. Else its last layer is left out, which Stable Diffusion 2 never calls.
    """

    prefix: str
    has_projection: bool

    def part(self, weights: Mapping[str, Tensor]) -> Part:
        """Return it under transformers' names. Raises ModelFileError."""
        own = {name.removeprefix(self.prefix): one for name, one in weights.items() if self.holds(name)}
        named = dict(_named(own))
        config = _config(named, "gelu")
        if not self.has_projection:
            return _without_last_layer(config, named)
        bare = own.get("text_projection")  # OpenCLIP's own is turned; some programs write a layer's instead
        projection = own.get(_PROJECTION) if bare is None else bare.T if bare.dim() == 2 else bare
        if projection is None or projection.dim() != 2 or not projection.numel():
            raise ModelFileError(f"its text encoder's {self.prefix}text_projection is missing or misshapen")
        return Part(config | {"projection_dim": projection.shape[0]}, projected(named) | {_PROJECTION: projection})

    def holds(self, name: str) -> bool:
        """Return whether a weight of this name is one of this encoder's."""
        return name.startswith(self.prefix)

    def defined(self, weights: Mapping[str, Tensor]) -> bool:
        """Return whether a file holds more of this encoder than leftovers."""
        return any(f"{self.prefix}{name}" in weights for name in _OPEN_CLIP_DEFINING)


def of_folder(config: Config, weights: Mapping[str, Tensor], *, has_projection: bool) -> Part:
    """Return a folder's text encoder. Raises ModelFileError."""
    words = {key: value for key, value in described(config).items() if key in _FIGURES}
    _require_clip(words)
    named = plain(weights)
    if has_projection:
        named = projected(named) | {name: one for name, one in weights.items() if name == _PROJECTION}
    return Part(moderate(words), named)


def described(config: Config) -> Config:
    """Return what a folder's configuration says about the text encoder. Raises ModelFileError."""
    words = config.get("text_config")  # of a whole CLIP
    if words is not None and not isinstance(words, dict):
        raise ModelFileError(f"its text encoder's text_config is {shown(words)}, not an object with its sizes")
    return config if words is None else words


def _require_clip(config: Config) -> None:
    """Raise ModelFileError unless every figure of a text encoder is one that CLIP can have."""
    for name, value in config.items():
        if name == "hidden_act":
            if value not in _ACTIVATIONS:
                raise ModelFileError(
                    f"its text encoder's hidden_act is {shown(value)}; gelu and quick_gelu are supported"
                )
        elif name == "layer_norm_eps":
            figures.positive("text encoder's layer_norm_eps", value)
        else:
            figures.whole(f"text encoder's {name}", value, 1, LARGEST)


def plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a text encoder's weights; merged files may lack `text_model.`, older ones hold a table of positions."""
    named = {key.removeprefix(_MODEL): value for key, value in weights.items()}
    return {key: one for key, one in named.items() if not key.endswith(_NOT_USED) and not key.startswith(_PICTURES)}


def projected(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a text encoder's weights under the names that they have beside a projection."""
    return {f"{_MODEL}{name}": weight for name, weight in weights.items()}


def _named(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield OpenCLIP's weights under transformers' names; those of queries, keys and values are views of one."""
    for name, weight in weights.items():
        if name.endswith((*_NOT_USED, "text_projection")) or name.startswith(_PICTURES):
            continue
        if not name.startswith(_OPEN_CLIP_LAYERS):
            yield _OPEN_CLIP.get(name, name), weight
            continue
        number, _, rest = name.removeprefix(_OPEN_CLIP_LAYERS).partition(".")
        layer = f"encoder.layers.{number}."
        if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
            kind = rest.rpartition("_")[2]
            if not weight.dim() or len(weight) % 3:
                raise ModelFileError(f"its text encoder's {name} is misshapen")
            for projection, each in zip("qkv", weight.tensor_split(3), strict=True):
                yield f"{layer}self_attn.{projection}_proj.{kind}", each
        else:
            stem, _, kind = rest.rpartition(".")
            yield f"{layer}{_OPEN_CLIP_LAYER.get(stem, stem)}.{kind}", weight


def _without_last_layer(config: Config, weights: Mapping[str, Tensor]) -> Part:
    """Return a text encoder without its last layer, unless that was left out of the file."""
    layers = config["num_hidden_layers"]
    if (config["hidden_size"], layers) == _OPEN_CLIP_H:
        return Part(config, weights)
    last = f"encoder.layers.{layers - 1}."
    rest = {name: weight for name, weight in weights.items() if not name.startswith(last)}
    return Part(moderate(config | {"num_hidden_layers": layers - 1}), rest)


def _config(weights: Mapping[str, Tensor], activation: str) -> Config:
    """Return the text encoder's configuration by its weights."""
    try:
        vocabulary, width = weights["embeddings.token_embedding.weight"].shape
        positions = weights["embeddings.position_embedding.weight"].shape[0]
        inner = weights["encoder.layers.0.mlp.fc1.weight"].shape[0]
    except (LookupError, ValueError) as error:
        raise ModelFileError(f"its text encoder is not CLIP's: {error} is missing or misshapen") from error
    layers = {key.split(".")[2] for key in weights if key.startswith("encoder.layers.")}
    if not width or width % HEAD_WIDTH:
        raise ModelFileError(f"its text encoder is {width} wide; it must be a multiple of 64, the width of a head")
    return moderate(
        {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": len(layers),
            "num_attention_heads": width // HEAD_WIDTH,
            "max_position_embeddings": positions,
            "projection_dim": width,
            "hidden_act": activation,
        }
    )
