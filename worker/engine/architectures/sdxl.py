"""Stable Diffusion XL and its refiner: two text encoders or one, a pooled vector, and the picture's size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from torch import nn

from shared.params.render import RenderParams
from shared.prompts.tokenizer import EOS
from worker.engine.architectures.base import Architecture, LatentColours, TextEncoder
from worker.engine.architectures.sd2 import OPEN_CLIP_FILLING

AESTHETIC_SCORE: Final = 6.0
NEGATIVE_AESTHETIC_SCORE: Final = 2.5
# The map of https://huggingface.co/docs/diffusers/using-diffusers/callback, there to 0..255.
USUAL_RGB: Final[LatentColours] = (
    (0.471, 0.471, 0.471), (-0.471, -0.039, 0.078), (0.196, 0.118, -0.039), (-0.549, -0.392, -0.275),
    (0.176, 0.098, 0.020),
)  # fmt: skip


class SDXL(Architecture):
    """Stable Diffusion XL (Podell et al. 2023, arXiv:2307.01952), and the families that were trained from it."""

    name = "sdxl"
    text_widths: ClassVar[Mapping[str, int]] = {"text_encoder": 768, "text_encoder_2": 1280}
    size_figures = 6
    zeroes_empty_negative = True
    usual_rgb = USUAL_RGB
    unet_cost = 2.1
    text_cost = 8.5

    def text_encoders(self, networks: Mapping[str, nn.Module]) -> tuple[TextEncoder, ...]:
        """Return CLIP-L and OpenCLIP-G, each read at its last layer but one, without the norm."""
        clip_l = TextEncoder("text_encoder", networks["text_encoder"], filling=EOS, layer=2, follows_clip_skip=True)
        return clip_l, _open_clip_g(networks)

    def clip_skip(self, params: RenderParams) -> int | None:
        """Return the layer of CLIP-L if the parameters ask for it; otherwise clip skip has no effect."""
        return params.clip_skip if params.sdxl_clip_l_skip else None

    def sizes(self, params: RenderParams, *, is_negative: bool) -> tuple[float, ...]:
        """Return original height and width, top and left of the crop, target height and width, in pixels."""
        del is_negative
        target = params.target_size or params
        return (*_original_and_crop(params), target.height, target.width)


class SDXLRefiner(Architecture):
    """The refiner of Stable Diffusion XL, which reads OpenCLIP-G alone and sees how beautiful the picture should be."""

    name = "sdxl-refiner"
    text_widths: ClassVar[Mapping[str, int]] = {"text_encoder_2": 1280}
    size_figures = 5
    zeroes_empty_negative = True
    usual_rgb = USUAL_RGB
    unet_cost = 2.3
    text_cost = 7.5

    def text_encoders(self, networks: Mapping[str, nn.Module]) -> tuple[TextEncoder, ...]:
        """Return OpenCLIP-G, read as in the base model."""
        return (_open_clip_g(networks),)

    def sizes(self, params: RenderParams, *, is_negative: bool) -> tuple[float, ...]:
        """Return original height and width, top and left of the crop, in pixels, and the aesthetic score."""
        return (*_original_and_crop(params), NEGATIVE_AESTHETIC_SCORE if is_negative else AESTHETIC_SCORE)


def _open_clip_g(networks: Mapping[str, nn.Module]) -> TextEncoder:
    name = "text_encoder_2"
    return TextEncoder(name, networks[name], filling=OPEN_CLIP_FILLING, layer=2, is_pooled=True)


def _original_and_crop(params: RenderParams) -> tuple[float, ...]:
    original = params.original_size or params
    return original.height, original.width, params.crop.top, params.crop.left
