"""Answers to `Embed`: chunks of many texts share a call of the text encoder, and its outputs are cached.

Emphasis is applied after the cache, chunk by chunk, so that it does not depend on other texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from shared.prompts.chunks import Chunk
from shared.prompts.tokenizer import BOS, EOS, TOKENS
from worker.engine.answers.calls import Calls, Subject
from worker.engine.requests import Embed
from worker.engine.transfers import to_device
from worker.engine.weights import Weights


class Row(NamedTuple):
    """One row of a call of the text encoder."""

    tokens: tuple[int, ...]  # 77
    clip_skip: int


Embedded = dict[Row, Tensor | Exception]


def embed(requests: Sequence[Embed], *, is_exact: bool, calls: Calls | None = None) -> list[Tensor | Exception]:
    """Return the context [tokens, width] of each request's text; all have the same text encoder.

    Chunks are encoded separately and joined. For an exact picture each chunk has a call to itself, and none comes from
    the cache, whose chunks may have shared a call.
    """
    weights = requests[0].weights
    rows = list(dict.fromkeys(_row(request, chunk) for request in requests for chunk in request.text))
    encode = partial(_encoded, weights, calls or Calls())
    embedded = encode(rows, 1) if is_exact else _encoded_or_cached(weights, encode, rows)
    return [_joined(request, embedded) for request in requests]


@torch.inference_mode()
def emphasised(embedding: Tensor, scales: Tensor, *, keeps_mean: bool) -> Tensor:
    """Return a chunk's embedding [77, width] with each token scaled by `scales` [77, 1].

    To keep the mean, the whole chunk is then scaled by one more number.
    """
    before = embedding.float()
    after = before * scales
    if keeps_mean:
        after = after * torch.nan_to_num(before.mean() / after.mean(), nan=1.0, posinf=1.0, neginf=1.0)
    return after.to(embedding.dtype)


def _row(request: Embed, chunk: Chunk) -> Row:
    """Return a chunk between BOS and EOS; EOS fills the rest, as in the training of Stable Diffusion 1."""
    filling = (EOS for _ in range(TOKENS - 1 - len(chunk.tokens)))
    return Row((BOS, *chunk.tokens, *filling), request.clip_skip)


def _joined(request: Embed, embedded: Embedded) -> Tensor | Exception:
    parts = []
    for chunk in request.text:
        embedding = embedded[_row(request, chunk)]
        if isinstance(embedding, Exception):
            return embedding
        parts.append(_emphasised(request, chunk, embedding))
    return torch.cat(parts)


def _emphasised(request: Embed, chunk: Chunk, embedding: Tensor) -> Tensor:
    """Return the embedding of a chunk, its tokens scaled by their weights; BOS and the filling tokens have weight 1."""
    if all(weight == 1 for weight in chunk.weights):
        return embedding
    scales = torch.ones(TOKENS, 1)
    scales[1 : len(chunk.weights) + 1, 0] = torch.tensor(chunk.weights)
    return emphasised(embedding, to_device(scales, request.weights.device), keeps_mean=request.keeps_mean)


def _encoded_or_cached(weights: Weights, encode: Callable[[Sequence[Row]], Embedded], rows: Sequence[Row]) -> Embedded:
    found = {row: weights.embeddings.get(row) for row in rows}
    cached = {row: embedding for row, embedding in found.items() if embedding is not None}
    new = encode([row for row, embedding in found.items() if embedding is None])
    for row, embedding in new.items():
        if isinstance(embedding, Tensor):
            weights.embeddings.put(row, embedding)
    return {**cached, **new}


def _encoded(weights: Weights, calls: Calls, rows: Sequence[Row], most: int | None = None) -> Embedded:
    """Return each row's embedding or error, from calls of `most` rows, or of as many as the device takes."""
    subject = Subject("embed", weights.text_encoder, (TOKENS,))
    encoded = calls.make(partial(_encode_rows, weights), rows, subject, most or weights.device.text_budget)
    return dict(zip(rows, encoded, strict=True))


@torch.inference_mode()
def _encode_rows(weights: Weights, rows: Sequence[Row]) -> Sequence[Tensor]:
    """Return each row's embedding [77, width] from one call: a layer's output, normalised as the last one."""
    tokens = to_device(torch.tensor([row.tokens for row in rows]), weights.device)  # [rows, 77]
    layers = weights.text_encoder(input_ids=tokens, output_hidden_states=True).hidden_states
    selected = torch.stack([layers[-row.clip_skip][place] for place, row in enumerate(rows)])
    embedded: Tensor = weights.text_encoder.final_layer_norm(selected)
    return embedded.to(weights.dtype).unbind()
