"""What the card answers. Here rows of many pictures share a call of a network; nothing above this module sees a batch.

Each function takes requests that may share a call and returns an answer for each, in order; a request that failed is
answered with its error. Called on the engine's thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from shared.tokens import BOS, EOS, TOKENS
from worker.engine.devices import sent
from worker.engine.halves import in_halves
from worker.engine.requests import Apply, Denoise, Embed, ToLatent, ToPixels
from worker.engine.weights import Weights

Chunk = tuple[int, ...]  # 77 token numbers
Joined = tuple[Tensor, ...] | Exception


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a U-Net call: one term of one picture's guidance."""

    x: Tensor  # [4, h/8, w/8]
    sigma: float
    context: Tensor  # [tokens, width]


def denoise(requests: Sequence[Denoise]) -> list[Tensor | Exception]:
    """Return a denoised latent for each request; all of the same weights and shape."""
    weights = requests[0].weights
    rows = [Row(request.x, request.sigma, term.context) for request in requests for term in request.terms]
    parts = iter(in_halves(partial(_denoise_rows, weights), rows))
    return [_summed(request, [next(parts) for _ in request.terms]) for request in requests]


def _summed(request: Denoise, parts: Sequence[Tensor | Exception]) -> Tensor | Exception:
    total: Tensor | None = None
    for term, part in zip(request.terms, parts, strict=True):
        if isinstance(part, Exception):
            return part
        weighed = part if term.weight == 1 else part * term.weight
        total = weighed if total is None else total + weighed
    return request.x if total is None else total


@torch.inference_mode()
def _denoise_rows(weights: Weights, rows: Sequence[Row]) -> Sequence[Tensor]:
    """Return each row's denoised latent [4, h/8, w/8], float32, from one call of the U-Net.

    The network sees x at unit variance and predicts the noise, or the velocity (Salimans and Ho, arXiv:2202.00512).
    """
    x = torch.stack([row.x for row in rows])  # [rows, 4, h/8, w/8]
    timesteps = sent(torch.tensor([weights.sigmas.timestep(row.sigma) for row in rows]), weights.device)
    sigma = sent(torch.tensor([row.sigma for row in rows]), weights.device)[:, None, None, None]
    scale = (1 + sigma**2).rsqrt()
    context, mask = padded([row.context for row in rows])
    scaled = (x * scale).to(weights.dtype, memory_format=torch.channels_last)
    output: Tensor = weights.unet(scaled, timesteps, context, encoder_attention_mask=mask, return_dict=False)[0].float()
    denoised = x * scale**2 - output * (sigma * scale) if weights.predicts_velocity else x - output * sigma
    return denoised.unbind()


def padded(contexts: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return contexts [tokens, width] as one [rows, longest, width], and which tokens are real [rows, longest].

    No mask where all are of one length of the ladder: attention without one is faster on a card.
    """
    longest = padded_chunks(max(len(context) for context in contexts) // TOKENS) * TOKENS
    if all(len(context) == longest for context in contexts):
        return torch.stack(list(contexts)), None
    filled = contexts[0].new_zeros(len(contexts), longest, contexts[0].shape[1])
    mask = torch.zeros(len(contexts), longest, dtype=torch.bool)
    for row, context in enumerate(contexts):
        filled[row, : len(context)] = context
        mask[row, : len(context)] = True
    return filled, mask.to(filled.device, non_blocking=True)


def padded_chunks(chunks: int) -> int:
    """Return the length that a context of `chunks` is padded to: 1, 2, 3, 4, 6, 8, 12, 16 …

    Few lengths, so that pictures meet in one call.
    """
    power = 1 << (chunks - 1).bit_length()
    return power * 3 // 4 if power >= 4 and chunks <= power * 3 // 4 else power


def embed(requests: Sequence[Embed], *, is_exact: bool) -> list[Joined]:
    """Return a context [tokens, width] for each text of each request; all of the same weights.

    Chunks are encoded by themselves and joined. An exact picture's are encoded one a call and never taken from the
    kept ones, which were encoded in company.
    """
    weights = requests[0].weights
    wanted = [[_chunks(weights, text) for text in request.texts] for request in requests]
    if is_exact:
        embedded = {chunk: _encoded(weights, [chunk])[chunk] for texts in wanted for text in texts for chunk in text}
    else:
        embedded = _encoded_or_kept(weights, [chunk for texts in wanted for text in texts for chunk in text])
    return [_joined(texts, embedded) for texts in wanted]


def _chunks(weights: Weights, text: str) -> list[Chunk]:
    """Each chunk of `text` between BOS and EOS; EOS fills the rest, as Stable Diffusion 1 was trained."""
    return [
        (BOS, *tokens, *(EOS for _ in range(TOKENS - 1 - len(tokens)))) for tokens in weights.tokenizer.chunks(text)
    ]


def _joined(texts: Sequence[Sequence[Chunk]], embedded: dict[Chunk, Tensor | Exception]) -> Joined:
    contexts = []
    for text in texts:
        parts = [embedded[chunk] for chunk in text]
        if failed := [part for part in parts if isinstance(part, Exception)]:
            return failed[0]
        contexts.append(torch.cat([part for part in parts if isinstance(part, Tensor)]))
    return tuple(contexts)


def _encoded_or_kept(weights: Weights, chunks: Sequence[Chunk]) -> dict[Chunk, Tensor | Exception]:
    found = {chunk: weights.embeddings.get(chunk) for chunk in chunks}
    known = {chunk: embedding for chunk, embedding in found.items() if embedding is not None}
    fresh = _encoded(weights, [chunk for chunk, embedding in found.items() if embedding is None])
    for chunk, embedding in fresh.items():
        if isinstance(embedding, Tensor):
            weights.embeddings.put(chunk, embedding)
    return {**known, **fresh}


def _encoded(weights: Weights, chunks: Sequence[Chunk]) -> dict[Chunk, Tensor | Exception]:
    """Each chunk's embedding or its error, encoded in calls of the card's row budget."""
    budget = weights.device.row_budget
    calls = [chunks[start : start + budget] for start in range(0, len(chunks), budget)]
    encoded = [embedding for rows in calls for embedding in in_halves(partial(_encode_rows, weights), rows)]
    return dict(zip(chunks, encoded, strict=True))


@torch.inference_mode()
def _encode_rows(weights: Weights, chunks: Sequence[Chunk]) -> Sequence[Tensor]:
    """Return each chunk's embedding [77, width] from one call of the text encoder."""
    tokens = sent(torch.tensor(chunks), weights.device)  # [rows, 77]
    embedded: Tensor = weights.text_encoder(input_ids=tokens).last_hidden_state
    return embedded.to(weights.dtype).unbind()


def to_pixels(requests: Sequence[ToPixels]) -> list[Tensor | Exception]:
    """Return pixels [3, h, w], float32, about -1..1, for each latent; all of the same weights and shape."""
    return in_halves(_decode, requests)


@torch.inference_mode()
def _decode(requests: Sequence[ToPixels]) -> Sequence[Tensor]:
    vae, scale = requests[0].weights.vae, requests[0].weights.latent_scale
    latents = torch.stack([request.latent for request in requests]) / scale
    latents = latents.to(next(vae.parameters()).dtype, memory_format=torch.channels_last)
    pixels: Tensor = vae.decode(latents, return_dict=False)[0]
    return pixels.float().unbind()


def to_latent(requests: Sequence[ToLatent]) -> list[Tensor | Exception]:
    """Return the most likely latent [4, h/8, w/8], float32, for each picture; all of the same weights and shape."""
    return in_halves(_encode, requests)


@torch.inference_mode()
def _encode(requests: Sequence[ToLatent]) -> Sequence[Tensor]:
    vae, scale = requests[0].weights.vae, requests[0].weights.latent_scale
    pixels = torch.stack([request.pixels for request in requests])
    pixels = pixels.to(next(vae.parameters()).dtype, memory_format=torch.channels_last)
    latents: Tensor = vae.encode(pixels).latent_dist.mode()
    return (latents.float() * scale).unbind()


def apply(requests: Sequence[Apply]) -> list[Tensor | Exception]:
    """Return what the network makes of each picture; all of the same network and shape."""
    return in_halves(_apply, requests)


@torch.inference_mode()
def _apply(requests: Sequence[Apply]) -> Sequence[Tensor]:
    pixels: Tensor = requests[0].network(torch.stack([request.pixels for request in requests]))
    return pixels.unbind()


def answer(requests: Sequence[Any], *, is_exact: bool) -> Sequence[Any]:
    """Return the answers to requests of one kind that may share a call."""
    kind = type(requests[0])
    if kind is Embed:
        return embed(requests, is_exact=is_exact)
    if kind not in _ANSWERS:
        raise TypeError(f"is no request: {requests[0]!r}")
    return _ANSWERS[kind](requests)


_ANSWERS: Final[dict[type, Callable[[Sequence[Any]], Sequence[Any]]]] = {
    Denoise: denoise,
    ToPixels: to_pixels,
    ToLatent: to_latent,
    Apply: apply,
}
