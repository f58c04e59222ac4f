"""Answers to `Denoise`: rows of many pictures share a call of the U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from shared.errors import RenderError
from worker.engine.adapters.hypernetworks import UNET, fed
from worker.engine.adapters.ip_adapters import prompted
from worker.engine.adapters.rows import adapted
from worker.engine.answers import controlling
from worker.engine.answers.calls import Calls, Subject
from worker.engine.answers.tiling import seamless
from worker.engine.architectures.conditioning import Conditioning, Stacked
from worker.engine.architectures.weights import Weights
from worker.engine.requests import Denoise
from worker.engine.transfers import to_device

Answer = Tensor | tuple[Tensor, ...] | Exception


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a U-Net call: one term of one picture's guidance."""

    x: Tensor  # [channels, h/cell, w/cell]
    sigma: float
    timestep: float
    conditioning: Conditioning


def denoise(requests: Sequence[Denoise], *, is_exact: bool, calls: Calls | None = None) -> list[Answer]:
    """Return a denoised latent for each request; all have the same U-Net, tiling and shape.

    In half precision, rounding depends on how many rows share a call, so each row of an exact picture has its own call.
    """
    call = partial(_denoise_rows, requests[0].weights)
    rows = [
        Row(request.x, request.sigma, request.weights.sigmas.timestep(request.sigma), term.conditioning)
        for request in requests
        for term in request.terms
    ]
    parts = iter((calls or Calls()).make(call, rows, subject(requests[0]), 1 if is_exact else None))
    return [_answered(request, [next(parts) for _ in request.terms]) for request in requests]


def subject(request: Denoise) -> Subject:
    """Return the subject of a call for `request`."""
    return Subject("denoise", request.weights.unet, tuple(request.x.shape))


def _answered(request: Denoise, parts: Sequence[Tensor | Exception]) -> Answer:
    """Return the sum over the terms, or a tuple of sums if more than one is wanted; an error if a term failed."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if failed := [part for part in parts if isinstance(part, Exception)]:
        return failed[0]
    total = _summed(tensors, [term.weight for term in request.terms])
    return (total, *(_summed(tensors, weights) for weights in request.also)) if request.also else total


def _summed(parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the weighted sum; if one part has weight 1 and the others 0, that part itself."""
    weighed = [part if weight == 1 else part * weight for part, weight in zip(parts, weights, strict=True) if weight]
    return sum(weighed[1:], start=weighed[0])


@torch.inference_mode()
def _denoise_rows(weights: Weights, rows: Sequence[Row]) -> Sequence[Tensor]:
    """Return each row's denoised latent [channels, h/cell, w/cell], float32, from one call of the U-Net."""
    x = torch.stack([row.x for row in rows])
    timesteps = to_device(torch.tensor([row.timestep for row in rows]), weights.device)
    sigma = to_device(torch.tensor([row.sigma for row in rows]), weights.device)[:, None, None, None]
    first, *others = (row.conditioning for row in rows)
    stacked = first.stack(others, weights.device, weights.masks)
    scaled = weights.prediction.scaled(x, sigma).to(weights.dtype, memory_format=torch.channels_last)
    seen = controlling.Inputs(scaled, timesteps, stacked, weights.tiling, weights.device)
    residuals = controlling.residuals([row.conditioning.controls for row in rows], seen)
    inputs = _inputs(weights, scaled, stacked)
    adapters = [row.conditioning.adapters for row in rows]
    pictures = [row.conditioning.image_prompts for row in rows]
    unet, device = weights.unet, weights.device
    with (
        seamless(unet, weights.tiling),
        adapted(unet, UNET, adapters, device),
        fed(unet, adapters, device),
        prompted(unet, pictures, device),
    ):
        output = weights.architecture.predict(unet, inputs, timesteps, stacked, residuals)
    return weights.prediction.denoised(x, sigma, output.float()).unbind()


def _inputs(weights: Weights, scaled: Tensor, rows: Stacked) -> Tensor:
    """Return the U-Net's inputs [rows, channels, h/cell, w/cell]: x, and for inpainting checkpoints the extra channels.

    Raises RenderError if an inpainting checkpoint gets no mask.
    """
    if not weights.takes_mask:
        return scaled
    if rows.extra is None:
        raise RenderError("this inpainting checkpoint needs a mask and a picture, and got none")
    extra = rows.extra.to(scaled.dtype)
    return torch.cat([scaled, extra], dim=1).contiguous(memory_format=torch.channels_last)
