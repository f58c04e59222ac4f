"""Conditionings and caches of checkpoints, for tests that ask the networks by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from shared.prompts.tokenizer import TOKENS
from worker.engine.architectures.base import CACHED_CHUNKS
from worker.engine.architectures.conditioning import Conditioning
from worker.engine.architectures.weights import Weights
from worker.engine.requests import Denoise, Term
from worker.engine.tensor_cache import TensorCache


def term(weight: float, context: Tensor, extra: Tensor | None = None) -> Term:
    """Return a term of a context alone, as Stable Diffusion 1 has it."""
    return Term(weight, Conditioning(context, TOKENS, extra=extra))


def denoising(weights: Weights, rows: Sequence[Mapping[str, object]], seed: int = 0, chunks: int = 1) -> Denoise:
    """Return a request with a drawn row for each of `rows`, which holds what its conditioning has beside the prompt.

    The last row has a text of `chunks`, the others of one.
    """
    draw = torch.Generator().manual_seed(seed)
    blank = weights.architecture.blank(weights.unet)

    def term(place: int, beside: Mapping[str, object]) -> Term:
        length = blank.chunk * (chunks if place == len(rows) - 1 else 1)
        context = torch.randn(length, blank.context.shape[1], generator=draw)
        pooled = None if blank.pooled is None else torch.randn(blank.pooled.shape, generator=draw)
        sizes = (512.0 + seed,) * len(blank.sizes)
        return Term(1 / len(rows), Conditioning(context, blank.chunk, pooled, sizes, **beside))  # type: ignore[arg-type]

    x = torch.randn(weights.latent.channels, 8, 8, generator=draw)
    return Denoise(weights, x, 1.0 + seed, tuple(term(*one) for one in enumerate(rows)), 1, 1)


def network(weights: Weights, name: str) -> nn.Module:
    """Return a network of a checkpoint with one text encoder, by diffusers' name."""
    found: nn.Module = weights.text_encoders[0].network if name == "text_encoder" else getattr(weights, name)
    return found


def with_empty_caches(weights: Weights, chunks: int = CACHED_CHUNKS) -> Weights:
    """Return the same weights, whose text encoders remember nothing yet, and at most so many chunks."""
    encoders = tuple(replace(encoder, cache=TensorCache(chunks)) for encoder in weights.text_encoders)
    return replace(weights, text_encoders=encoders)
