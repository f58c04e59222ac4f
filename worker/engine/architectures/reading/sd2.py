"""Reads Stable Diffusion 2: files with OpenCLIP-H, and their folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from torch import Tensor

from worker.engine.architectures.parts import Figures, Parts
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.reading import unet
from worker.engine.architectures.reading.original_config import Stated
from worker.engine.architectures.reading.reader import Expected, Reader
from worker.engine.architectures.reading.text import OpenClipText
from worker.engine.architectures.sd2 import SD2
from worker.engine.files.kinds import OtherKind
from worker.engine.files.tensors import training_step

_STEP_OF_BASE: Final = 875_000  # of training: Stability's 512-base-ema.ckpt of version 2.0, which predicts noise
_ASSUMED: Final = (
    "says nowhere what it predicts: velocity is assumed, as in version 2.1 for 768 pixels, until a worker loads it and "
    "measures what it predicts. If that is noise, 512 pixels may suit it better than 768: a .yaml of the same name "
    "beside it with `model: {params: {parameterization: eps}}` lets the list say both"
)
_NATIVE_SIZES: Final = {Prediction.NOISE: 512, Prediction.VELOCITY: 768}
_OTHER_CHANNELS: Final = {
    5: "a depth checkpoint of Stable Diffusion 2, whose U-Net takes a depth map as a fifth channel",
    7: "an upscaler of Stable Diffusion 2 (x4), whose U-Net takes a small picture as three more channels",
}


class SD2Reader(Reader):
    """Reads Stable Diffusion 2.x."""

    architecture = SD2()
    texts: ClassVar = {"text_encoder": OpenClipText("cond_stage_model.model.", has_projection=False)}

    def of_file(self, path: Path, weights: Mapping[str, Tensor]) -> Parts:
        """Return the checkpoint in the single file at `path`. Raises ModelFileError."""
        if unet.reads_sizes(weights):
            raise OtherKind("an unCLIP checkpoint of Stable Diffusion 2, which reads pictures")
        return super().of_file(path, weights)

    def expected(self, weights: Mapping[str, Tensor], prediction: Prediction | None) -> Expected:
        """Return what the file says; else noise for inpainting and for the known base model; else velocity, with a
        note, until the network is loaded.
        """
        is_base = training_step(weights) == _STEP_OF_BASE
        if prediction is None and (is_base or unet.channels(weights) > self.architecture.latent.channels):
            prediction = Prediction.NOISE
        known = prediction or Prediction.VELOCITY
        return Expected(known, _NATIVE_SIZES[known], None if prediction else _ASSUMED)

    def figures(self, weights: Mapping[str, Tensor], stated: Stated) -> Figures:
        """Return the figures of a single file: its prediction decides its size, and not the 64 of every .yaml.

        If the prediction is assumed, those of the other one are there too.
        """
        if stated.native_size == _NATIVE_SIZES[Prediction.NOISE]:
            stated = replace(stated, native_size=None)
        figures = super().figures(weights, stated)
        if figures.note is None:
            return figures
        return replace(figures, if_noise=super().figures(weights, replace(stated, prediction=Prediction.NOISE)))

    def require_channels(self, channels: object) -> None:
        """Raise ModelFileError unless a U-Net that takes so many channels sees a latent, or a mask beside it."""
        if isinstance(channels, int) and channels in _OTHER_CHANNELS:
            raise OtherKind(_OTHER_CHANNELS[channels])
        super().require_channels(channels)
