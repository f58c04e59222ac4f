"""The forms of U-Nets, by which networks beside them fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def form(config: Mapping[str, Any]) -> dict[str, object]:
    """Return what a control net has in common with the U-Net that it steers, by their configurations in diffusers."""
    return {
        "widths": tuple(config["block_out_channels"]),
        "layers": config["layers_per_block"],
        "text": config["cross_attention_dim"],
        "vector": config["projection_class_embeddings_input_dim"] if config["addition_embed_type"] else None,
    }


def described(form: Mapping[str, object]) -> str:
    """Return a form in words."""
    widths = ", ".join(map(str, form["widths"]))  # type: ignore[call-overload]  # a tuple
    sizes = f" and a vector of {form['vector']}" if form["vector"] else ""
    return f"{form['layers']} layers for each of the widths {widths}, which reads texts of {form['text']}{sizes}"
