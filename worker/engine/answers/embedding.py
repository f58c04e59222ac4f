"""Answers to `Embed`: chunks of many texts share a call of each text encoder, and its outputs are cached.

Emphasis is applied after the cache, chunk by chunk, so that it does not depend on other texts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import torch
from torch import Tensor

from shared.prompts.chunks import Chunk
from worker.engine.adapters.rows import adapted
from worker.engine.answers.calls import Calls, Subject
from worker.engine.architectures.base import Encoded, TextEncoder
from worker.engine.architectures.conditioning import Applied, Conditioning
from worker.engine.architectures.embeddings import taught
from worker.engine.architectures.weights import Weights
from worker.engine.requests import Embed
from worker.engine.transfers import to_device


@dataclass(frozen=True)
class Row:
    """One row of a call of a text encoder. Rows that are read alike are equal."""

    tokens: tuple[int, ...]
    layer: int  # from the end
    changes: tuple[Hashable, ...] = ()  # by adapters; a cached row holds none of them
    adapters: tuple[Applied, ...] = field(default=(), compare=False)


Outputs = Mapping[Row, Encoded | Exception]
_STAND_IN: Final = 0  # token of the vocabulary in the place of a virtual one, whose vector it gets


def embed(requests: Sequence[Embed], *, is_exact: bool, calls: Calls | None = None) -> list[Conditioning | Exception]:
    """Return the conditioning of each request's text; all have the same text encoders.

    Chunks are encoded separately and joined. For an exact picture each chunk has a call to itself, and none comes from
    the cache, whose chunks may have shared a call.
    """
    weights, calls = requests[0].weights, calls or Calls()
    outputs: list[Outputs] = []
    for encoder in weights.text_encoders:
        rows = list(dict.fromkeys(_row(encoder, request, chunk) for request in requests for chunk in request.text))
        encode = partial(_encoded, weights, encoder, calls, _learned(encoder, requests))
        outputs.append(encode(rows, 1) if is_exact else _encoded_or_cached(encoder, encode, rows))
    return [_conditioning(request, outputs) for request in requests]


@torch.inference_mode()
def emphasised(embedding: Tensor, scales: Tensor, *, keeps_mean: bool) -> Tensor:
    """Return a chunk's embedding [tokens, width] with each token scaled by `scales` [tokens, 1].

    To keep the mean, the whole chunk is then scaled by one more number.
    """
    before = embedding.float()
    after = before * scales
    if keeps_mean:
        after = after * torch.nan_to_num(before.mean() / after.mean(), nan=1.0, posinf=1.0, neginf=1.0)
    return after.to(embedding.dtype)


def _row(encoder: TextEncoder, request: Embed, chunk: Chunk) -> Row:
    adapters = tuple(
        applied for applied in request.adapters if applied.weight and applied.adapter.changes(encoder.name)
    )
    changes = tuple(applied.key for applied in adapters)
    return Row(encoder.tokens(chunk), encoder.layer_of(request.clip_skip), changes, adapters)


@torch.inference_mode()
def _conditioning(request: Embed, outputs: Sequence[Outputs]) -> Conditioning | Exception:
    """Return the layers of all encoders, joined in width, with the pooled vector of the first chunk."""
    weights, contexts, pooled = request.weights, [], None
    for encoder, of_row in zip(weights.text_encoders, outputs, strict=True):
        chunks = [of_row[_row(encoder, request, chunk)] for chunk in request.text]
        encoded = [chunk for chunk in chunks if isinstance(chunk, Encoded)]
        if failed := [chunk for chunk in chunks if isinstance(chunk, Exception)]:
            return failed[0]
        layers = [_emphasised(request, *each) for each in zip(request.text, encoded, strict=True)]
        contexts.append(torch.cat(layers))
        pooled = encoded[0].pooled if encoder.is_pooled else pooled
    context = contexts[0] if len(contexts) == 1 else torch.cat(contexts, dim=1)
    return Conditioning(context, weights.architecture.chunk, pooled)


def _emphasised(request: Embed, chunk: Chunk, encoded: Encoded) -> Tensor:
    """Return the layer of a chunk, its tokens scaled by their weights; BOS and the filling tokens have weight 1."""
    if all(weight == 1 for weight in chunk.weights):
        return encoded.layer
    scales = torch.ones(len(encoded.layer), 1)
    scales[1 : len(chunk.weights) + 1, 0] = torch.tensor(chunk.weights)
    return emphasised(encoded.layer, to_device(scales, request.weights.device), keeps_mean=request.keeps_mean)


def _encoded_or_cached(
    encoder: TextEncoder, encode: Callable[[Sequence[Row]], Outputs], rows: Sequence[Row]
) -> Outputs:
    found = {row: encoder.cache.get(row) for row in rows}
    cached = {row: encoded for row, encoded in found.items() if encoded is not None}
    new = encode([row for row, encoded in found.items() if encoded is None])
    for row, encoded in new.items():
        if isinstance(encoded, Encoded):
            encoder.cache.put(replace(row, adapters=()), encoded.each(torch.clone))
    return {**cached, **new}


def _learned(encoder: TextEncoder, requests: Sequence[Embed]) -> dict[int, Tensor]:
    """Return the vectors [width] of the virtual tokens that the texts of `requests` may have."""
    every = dict.fromkeys(one for request in requests for one in request.weights.embeddings)
    return {token: vector for one in every for token, vector in one.by_token(encoder).items()}


def _encoded(  # noqa: PLR0913, PLR0917 - a partial of the first ones
    weights: Weights,
    encoder: TextEncoder,
    calls: Calls,
    learned: Mapping[int, Tensor],
    rows: Sequence[Row],
    most: int | None = None,
) -> Outputs:
    """Return each row's output or error, from calls of `most` rows, or of as many as the device takes."""
    subject = Subject("embed", encoder.network, (weights.architecture.chunk,))
    made = calls.make(
        partial(_encode_rows, weights, encoder, learned), rows, subject, most or weights.device.text_budget
    )
    return dict(zip(rows, made, strict=True))


@torch.inference_mode()
def _encode_rows(
    weights: Weights, encoder: TextEncoder, learned: Mapping[int, Tensor], rows: Sequence[Row]
) -> Sequence[Encoded]:
    """Return each row's output from one call, in the number format of the U-Net."""
    vectors = [{place: learned[token] for place, token in enumerate(row.tokens) if token in learned} for row in rows]
    known = [[_STAND_IN if token in learned else token for token in row.tokens] for row in rows]
    tokens = to_device(torch.tensor(known), weights.device)  # [rows, tokens]
    layers = [row.layer for row in rows]
    adapters = [row.adapters for row in rows]
    with adapted(encoder.network, encoder.name, adapters, weights.device), taught(encoder, vectors, weights.device):
        encoded = encoder.encode(tokens, layers)
    return [row.each(lambda tensor: tensor.to(weights.dtype)) for row in encoded]
