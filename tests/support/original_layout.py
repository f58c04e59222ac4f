"""The way from the networks of diffusers and transformers to the original single-file layouts.

`tools.demo_checkpoint.layout` has it for U-Net and VAE; here are the text encoders, and what else real files hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

_OPEN_CLIP: Final = {  # names of one layer in transformers -> in OpenCLIP
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OPEN_CLIP_ENDS: Final = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def clip(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of OpenAI's CLIP as files before transformers 4.31 hold them, with its numbers of places."""
    places = next(weight for name, weight in weights.items() if name.endswith("position_embedding.weight"))
    named = {f"{prefix}text_model.{name.removeprefix('text_model.')}": weight for name, weight in weights.items()}
    return named | {f"{prefix}text_model.embeddings.position_ids": torch.arange(len(places))[None]}


def open_clip(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a text encoder as OpenCLIP names and packs them."""
    bare = {name.removeprefix("text_model."): weight for name, weight in weights.items()}
    width = bare["final_layer_norm.weight"].numel()
    found = {name: bare[old] for old, name in _OPEN_CLIP_ENDS.items()}
    found["text_projection"] = (
        bare["text_projection.weight"].T if "text_projection.weight" in bare else torch.eye(width)
    )
    found["logit_scale"] = torch.tensor(4.6055)
    for layer in range(1 + max(int(name.split(".")[2]) for name in bare if name.startswith("encoder.layers."))):
        found |= _open_clip_layer(bare, layer)
    return {prefix + name: weight for name, weight in found.items()}


def _open_clip_layer(weights: Mapping[str, Tensor], layer: int) -> dict[str, Tensor]:
    old, new = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
    found = {}
    for leaf in ("weight", "bias"):
        packed = [weights[f"{old}self_attn.{part}_proj.{leaf}"] for part in "qkv"]
        found[f"{new}attn.in_proj_{leaf}"] = torch.cat(packed)
        found |= {f"{new}{name}.{leaf}": weights[f"{old}{part}.{leaf}"] for part, name in _OPEN_CLIP.items()}
    return found
