"""Walks of samplers without an engine: a model known in closed form, and what stands for the engine."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor

from shared.params.samplers import SAMPLERS
from worker.engine.requests import Work


class Denoiser:
    """denoised = tanh(x / (1 + sigma)); remembers at which sigmas it was called, and asks no card."""

    def __init__(self, *, is_pair: bool = False) -> None:
        self.sigmas: list[float] = []
        self._is_pair = is_pair

    @classmethod
    def of(cls, sampler: str) -> Denoiser:
        """Return one that answers as `sampler` needs it."""
        return cls(is_pair=SAMPLERS[sampler].needs_unconditional)

    def __call__(self, x: Tensor, sigma: float) -> Generator[Any, Any, Any]:
        self.sigmas.append(sigma)
        yield from ()
        denoised = torch.tanh(x / (1 + sigma))
        return (denoised, denoised * 0.9) if self._is_pair else denoised


def finished(walk: Generator[Any, Any, Tensor]) -> Tensor:
    """Return what a walk comes to whose model never waits; work is done on the spot."""
    answer = None
    while True:
        try:
            asked = walk.send(answer)
        except StopIteration as end:
            return end.value
        assert isinstance(asked, Work)
        answer = asked.function()
