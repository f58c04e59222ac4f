"""Stable Diffusion 2: OpenCLIP-H, whose last layer but one is read, and a U-Net that predicts noise or velocity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from worker.engine.architectures.base import Architecture, TextEncoder

OPEN_CLIP_FILLING = 0  # token that fills a chunk behind its EOS


class SD2(Architecture):
    """Stable Diffusion 2.x."""

    name = "sd2"
    text_widths: ClassVar[Mapping[str, int]] = {"text_encoder": 1024}
    text_cost = 3.5

    def text_encoders(self, networks: Mapping[str, nn.Module]) -> tuple[TextEncoder, ...]:
        """Return OpenCLIP-H, without the last layer of its original: here the layer before is the last.

        Clip skip does not change it, as in the web UI.
        """
        return (TextEncoder("text_encoder", networks["text_encoder"], filling=OPEN_CLIP_FILLING, is_normed=True),)
