"""A trial call of a U-Net, which shows what it predicts if its file does not say it.

At the last training timestep its input is noise and hardly anything else. A network that predicts noise answers with
its input. One that predicts velocity, alpha * noise - sigma * x0, answers with about minus the latent of an average
picture: its input has next to no part in that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from worker.engine.architectures.base import Architecture
from worker.engine.architectures.prediction import Prediction
from worker.engine.devices import Device
from worker.engine.sigma_table import SigmaTable
from worker.engine.tensor_cache import TensorCache
from worker.engine.transfers import fetched, to_device

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

SIDE: Final = 16  # cells: the lowest level of a U-Net still has more than one
_THRESHOLD: Final = 0.5  # between the two shares that trained networks give


@torch.inference_mode()
def prediction(
    unet: UNet2DConditionModel, architecture: Architecture, sigmas: SigmaTable, device: Device
) -> Prediction:
    """Return what `unet` predicts; velocity if it answers with numbers that are not finite.

    Reads from the card, so it waits for it: not on the engine's thread.
    """
    generator = torch.Generator().manual_seed(0)  # always the same noise
    noise = torch.randn(1, architecture.latent.channels, SIDE, SIDE, generator=generator)
    inputs = to_device(noise, device).to(unet.dtype, memory_format=torch.channels_last)
    last = to_device(torch.tensor([float(len(sigmas.values) - 1)]), device)
    no_text = architecture.blank(unet).stack([], device, TensorCache(1))
    answer = fetched(architecture.predict(unet, inputs, last, no_text).float())
    return Prediction.NOISE if _THRESHOLD < share(noise, answer) < math.inf else Prediction.VELOCITY


def share(noise: Tensor, answer: Tensor) -> float:
    """Return how much of `noise` an answer has in it, by least squares: 1 if it is the noise itself.

    Correlation would not do: that of a small multiple of the noise is 1 as well, and an answer of zeros has none.
    """
    return float((noise * answer).sum() / noise.square().sum())
