"""Stable Diffusion 2: OpenCLIP-H, whose last layer but one is read, and a U-Net that predicts noise or velocity."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from shared.params.render import RenderParams
from worker.engine.architectures.base import Architecture, TextEncoder

OPEN_CLIP_FILLING = 0  # token that fills a chunk behind its EOS


class SD2(Architecture):
    """Stable Diffusion 2.x."""

    name = "sd2"
    text_cost = 3.5

    def text_encoders(self, networks: Mapping[str, nn.Module]) -> tuple[TextEncoder, ...]:
        """Return OpenCLIP-H, without the last layer of its original: here the layer before is the last."""
        return (TextEncoder(networks["text_encoder"], filling=OPEN_CLIP_FILLING, is_normed=True),)

    def clip_skip(self, params: RenderParams) -> int | None:
        """Return None: the layer is fixed by the training, and the web UI does not change it either."""
        del params
        return None
