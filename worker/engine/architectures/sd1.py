"""Stable Diffusion 1: CLIP-L, whose last layer is read, and a U-Net that sees nothing but the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from shared.params.render import RenderParams
from shared.prompts.tokenizer import EOS
from worker.engine.architectures.base import Architecture, TextEncoder


class SD1(Architecture):
    """Stable Diffusion 1.x."""

    name = "sd1"
    text_widths: ClassVar[Mapping[str, int]] = {"text_encoder": 768}

    def text_encoders(self, networks: Mapping[str, nn.Module]) -> tuple[TextEncoder, ...]:
        """Return CLIP-L, as in the training: EOS fills a chunk, and every layer that is read passes the last norm."""
        return (
            TextEncoder("text_encoder", networks["text_encoder"], filling=EOS, follows_clip_skip=True, is_normed=True),
        )

    def clip_skip(self, params: RenderParams) -> int | None:
        """Return the layer that the parameters ask for."""
        return params.clip_skip
