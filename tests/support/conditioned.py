"""Conditionings and caches of checkpoints, for tests that ask the networks by themselves."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from shared.prompts.tokenizer import TOKENS
from worker.engine.architectures.base import CACHED_CHUNKS
from worker.engine.architectures.conditioning import Conditioning
from worker.engine.architectures.weights import Weights
from worker.engine.requests import Term
from worker.engine.tensor_cache import TensorCache


def term(weight: float, context: Tensor, extra: Tensor | None = None) -> Term:
    """Return a term of a context alone, as Stable Diffusion 1 has it."""
    return Term(weight, Conditioning(context, TOKENS, extra=extra))


def network(weights: Weights, name: str) -> nn.Module:
    """Return a network of a checkpoint with one text encoder, by diffusers' name."""
    found: nn.Module = weights.text_encoders[0].network if name == "text_encoder" else getattr(weights, name)
    return found


def with_empty_caches(weights: Weights, chunks: int = CACHED_CHUNKS) -> Weights:
    """Return the same weights, whose text encoders remember nothing yet, and at most so many chunks."""
    encoders = tuple(replace(encoder, cache=TensorCache(chunks)) for encoder in weights.text_encoders)
    return replace(weights, text_encoders=encoders)
