"""The network of an IP-Adapter, with diffusers' layers. Imports diffusers, which takes seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from diffusers.models.embeddings import (
    ImageProjection,
    IPAdapterFullImageProjection,
    IPAdapterPlusImageProjection,
)
from torch import Tensor, nn


class ImagePrompter(nn.Module):
    """Makes of an image's features what each cross-attention of a U-Net reads of them."""

    def __init__(self, projection: nn.Module, context: int, layers: Iterable[tuple[str, int]]) -> None:
        """`layers`: the number of each cross-attention, in order, and the width of its keys and values."""
        super().__init__()
        self.image_proj = projection
        self.ip_adapter = nn.ModuleDict(
            {
                number: nn.ModuleDict({part: nn.Linear(context, width, bias=False) for part in ("to_k_ip", "to_v_ip")})
                for number, width in layers
            }
        )

    @classmethod
    def of(cls, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Self:
        """Return the network of this configuration (of `reading.ip_adapters`), as wide as `weights`."""
        numbers = [2 * place + 1 for place in range(config["layers"])]
        widths = ((str(one), weights[f"ip_adapter.{one}.to_k_ip.weight"].shape[0]) for one in numbers)
        return cls(_projection(config), config["context"], widths)

    def forward(self, features: Tensor) -> Tensor:
        """Return keys and values of the tokens of pictures [rows, tokens, keys and values of all layers in order].

        `features` [rows, places, width] are those that the image encoder made.
        """
        tokens = self.image_proj(features)
        parts = [layer[part](tokens) for layer in self.ip_adapter.values() for part in ("to_k_ip", "to_v_ip")]  # type: ignore[index]  # a ModuleDict
        return torch.cat(parts, dim=-1)


def _projection(config: Mapping[str, Any]) -> nn.Module:
    width, context = config["image_width"], config["context"]
    if config["form"] == "plain":
        return ImageProjection(width, context, config["tokens"])
    if config["form"] == "full":
        return IPAdapterFullImageProjection(width, context)
    return IPAdapterPlusImageProjection(
        embed_dims=width,
        output_dims=context,
        hidden_dims=config["width"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        num_queries=config["tokens"],
        ffn_ratio=config["ratio"],
    )
