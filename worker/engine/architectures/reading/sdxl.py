"""Reads Stable Diffusion XL and its refiner: files with OpenCLIP-G, and their folders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from worker.engine.architectures.base import Architecture
from worker.engine.architectures.parts import Part
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.reading import unet
from worker.engine.architectures.reading.reader import Expected, Reader
from worker.engine.architectures.reading.text import ClipText, OpenClipText
from worker.engine.architectures.sdxl import SDXL, SDXLRefiner
from worker.engine.files.config_bounds import Config
from worker.engine.sigma_table import ALIGNED_XL


class SDXLReader(Reader):
    """Reads Stable Diffusion XL and the families that were trained from it."""

    architecture: ClassVar[Architecture] = SDXL()
    texts: ClassVar = {
        "text_encoder": ClipText("conditioner.embedders.0.transformer."),
        "text_encoder_2": OpenClipText("conditioner.embedders.1.model.", has_projection=True),
    }
    latent_scale = 0.13025
    aligned = ALIGNED_XL

    def likeness(self, weights: Mapping[str, Tensor]) -> tuple[bool, int]:
        """Return it with the U-Net counted too, by which one without any text encoder is known."""
        is_defined, names = super().likeness(weights)
        return is_defined, names + unet.reads_sizes(weights)

    def size_config(self, weights: Mapping[str, Tensor], texts: Mapping[str, Part]) -> Config:
        """Return the U-Net's configuration for what it reads about the picture's size. Raises ModelFileError."""
        pooled = texts["text_encoder_2"].config["projection_dim"]
        return unet.size_config(weights, pooled, self.architecture.size_figures)

    def expected(self, weights: Mapping[str, Tensor], prediction: Prediction | None) -> Expected:
        """Return what the file says, else noise."""
        del weights
        return Expected(prediction or Prediction.NOISE, 1024)


class SDXLRefinerReader(SDXLReader):
    """Reads the refiner of Stable Diffusion XL."""

    architecture = SDXLRefiner()
    texts: ClassVar = {"text_encoder_2": OpenClipText("conditioner.embedders.0.model.", has_projection=True)}
