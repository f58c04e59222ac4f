"""Answers to `Denoise`: rows of many pictures share a call of the U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from shared.errors import RenderError
from shared.prompts.tokenizer import TOKENS
from worker.engine.answers.calls import Calls, Subject
from worker.engine.answers.tiling import seamless
from worker.engine.requests import Denoise
from worker.engine.transfers import to_device
from worker.engine.weights import Weights

Answer = Tensor | tuple[Tensor, ...] | Exception


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a U-Net call: one term of one picture's guidance."""

    x: Tensor  # [4, h/8, w/8]
    sigma: float
    timestep: float
    context: Tensor  # [tokens, width]
    extra: Tensor | None  # [5, h/8, w/8]


def denoise(requests: Sequence[Denoise], *, is_exact: bool, calls: Calls | None = None) -> list[Answer]:
    """Return a denoised latent for each request; all have the same U-Net, tiling and shape.

    In half precision, rounding depends on how many rows share a call, so each row of an exact picture has its own call.
    """
    call = partial(_denoise_rows, requests[0].weights)
    rows = [
        Row(request.x, request.sigma, request.weights.sigmas.timestep(request.sigma), term.context, request.extra)
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
    """Return each row's denoised latent [4, h/8, w/8], float32, from one call of the U-Net.

    The network sees x at unit variance and predicts the noise, or the velocity (Salimans and Ho, arXiv:2202.00512).
    """
    x = torch.stack([row.x for row in rows])  # [rows, 4, h/8, w/8]
    timesteps = to_device(torch.tensor([row.timestep for row in rows]), weights.device)
    sigma = to_device(torch.tensor([row.sigma for row in rows]), weights.device)[:, None, None, None]
    scale = (1 + sigma**2).rsqrt()
    contexts = [row.context for row in rows]
    context, mask = padded(contexts), _mask(weights, contexts)
    inputs = _inputs(weights, x * scale, rows).to(weights.dtype, memory_format=torch.channels_last)
    with seamless(weights.unet, weights.tiling):
        output: Tensor = weights.unet(inputs, timesteps, context, encoder_attention_mask=mask, return_dict=False)[0]
    predicted = output.float()
    denoised = x * scale**2 - predicted * (sigma * scale) if weights.predicts_velocity else x - predicted * sigma
    return denoised.unbind()


def _inputs(weights: Weights, scaled: Tensor, rows: Sequence[Row]) -> Tensor:
    """Return the U-Net's inputs [rows, 4 or 9, h/8, w/8]: x, and for inpainting checkpoints mask and masked latent.

    Raises RenderError if an inpainting checkpoint gets no mask.
    """
    if not weights.takes_mask:
        return scaled
    extra = [row.extra for row in rows if row.extra is not None]
    if len(extra) < len(rows):
        raise RenderError("this inpainting checkpoint needs a mask and a picture, and got none")
    return torch.cat([scaled, torch.stack(extra)], dim=1)


def padded(contexts: Sequence[Tensor]) -> Tensor:
    """Return contexts [tokens, width] as one [rows, tokens, width], each padded with zeros to a common length."""
    longest = _length(contexts)
    if all(len(context) == longest for context in contexts):
        return torch.stack(list(contexts))
    width = contexts[0].shape[1]
    zeros = contexts[0].new_zeros(longest, width)
    parts = [part for context in contexts for part in (context, zeros[len(context) :])]
    return torch.cat(parts).view(len(contexts), longest, width)  # one kernel for any number of rows


def _mask(weights: Weights, contexts: Sequence[Tensor]) -> Tensor | None:
    """Return which tokens of padded contexts are real [rows, tokens].

    None if all contexts have that length: attention without a mask is faster on a card.
    """
    longest, lengths = _length(contexts), tuple(map(len, contexts))
    if all(length == longest for length in lengths):
        return None
    mask = weights.masks.get((longest, lengths))
    if mask is None:
        places = torch.arange(longest)[None]
        mask = to_device(places < torch.tensor(lengths)[:, None], weights.device)
        weights.masks.put((longest, lengths), mask)
    return mask


def _length(contexts: Sequence[Tensor]) -> int:
    return padded_chunks(max(map(len, contexts)) // TOKENS) * TOKENS


def padded_chunks(chunks: int) -> int:
    """Return the length that a context of `chunks` is padded to: 1, 2, 3, 4, 6, 8, 12, 16 …

    There are few lengths, so that many pictures can share a call.
    """
    power = 1 << (chunks - 1).bit_length()
    return power * 3 // 4 if power >= 4 and chunks <= power * 3 // 4 else power
