"""What both trainings share: a budget in minutes, averaged weights, and a state on disk that survives a kill."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from tools.demo_checkpoint.curves import draw_curve
from tools.demo_checkpoint.optimiser import Muon, has_fast_bfloat16

SAVE_SECONDS = 120.0
WARM_UP_STEPS = 50
EMA_DECAY = 0.998


class Training:
    """Trains `network` with `loss(step, progress)` until its minutes are spent, whatever the number of starts.

    The learning rate follows the time spent, a cosine down to a fiftieth: a budget raised later picks up from there.
    """

    def __init__(self, network: nn.Module, rate: float, minutes: float, state: Path) -> None:
        self.network, self.rate, self.budget_seconds, self.path = network, rate, 60 * minutes, state
        self.averaged = copy.deepcopy(network).requires_grad_(requires_grad=False).eval()
        self.optimisers = _optimisers(network, rate)
        self.steps, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        if state.exists():
            self._restore(torch.load(state, weights_only=True))

    @property
    def progress(self) -> float:
        return min(self.seconds / self.budget_seconds, 1.0)

    def run(self, loss: Callable[[int, float], dict[str, Tensor]], log: Callable[[str], None]) -> None:
        """Step until the budget is spent; `loss` answers parts, of which "loss" is what is minimised."""
        saved = time.monotonic()
        for _ in self._paced():
            self.history.append(self._step(loss))
            self.steps += 1
            if self.steps % 25 == 0:
                log(self._line())
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    def save(self) -> None:
        """Write the state, whole or not at all, and the loss curve beside it."""
        partial = self.path.with_suffix(".partial")
        names = ("steps", "seconds", "history")
        state: dict[str, Any] = {name: getattr(self, name) for name in names}
        state |= {"network": self.network.state_dict(), "averaged": self.averaged.state_dict()}
        state["optimisers"] = [optimiser.state_dict() for optimiser in self.optimisers]
        torch.save(state, partial)
        partial.replace(self.path)
        draw_curve(self.history, self.path.with_suffix(".png"))

    def _restore(self, state: dict[str, Any]) -> None:
        self.steps, self.seconds, self.history = state["steps"], state["seconds"], state["history"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)

    def _paced(self) -> Iterator[None]:
        """Yields once a step while time is left, and counts its time, except for the first step, which compiles."""
        with _progress_bar() as bar:
            task = bar.add_task(self.path.stem, total=self.budget_seconds, completed=self.seconds)
            first = self.steps
            while self.seconds < self.budget_seconds:
                started = time.monotonic()
                yield
                self.seconds += 0 if self.steps == first + 1 else time.monotonic() - started
                bar.update(task, completed=self.seconds, description=self._line())

    def _step(self, loss: Callable[[int, float], dict[str, Tensor]]) -> dict[str, float]:
        rate = (
            self.rate
            * min(1, (self.steps + 1) / WARM_UP_STEPS)
            * (0.02 + 0.49 * (1 + math.cos(math.pi * self.progress)))
        )
        for group in (group for optimiser in self.optimisers for group in optimiser.param_groups):
            group["lr"] = rate
        parts = loss(self.steps, self.progress)
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        decay = min(EMA_DECAY, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.network.parameters()), 1 - decay)
        return {name: float(part.detach()) for name, part in parts.items()}

    def _line(self) -> str:
        recent = self.history[-50:]
        parts = {name: sum(step[name] for step in recent) / len(recent) for name in recent[-1]} if recent else {}
        figures = " ".join(f"{name} {value:.4f}" for name, value in parts.items())
        return f"{self.path.stem} step {self.steps} at {self.seconds / 60:.1f} min: {figures}"


def compile_blocks(network: nn.Module) -> None:
    """Compile the residual blocks, where the time goes.

    Whole networks are left alone: with torch 2.13 on the CPU a compiled nearest-neighbour upsampling of bfloat16 in
    channels_last answers a zero gradient.
    """
    torch._dynamo.config.recompile_limit = 64  # noqa: SLF001  one code object serves all blocks
    for block in network.modules():
        if isinstance(block, ResnetBlock2D):
            block.compile(dynamic=False)


def half_precision(device: str) -> AbstractContextManager[None]:
    """bfloat16 where it is faster than float32."""
    return torch.autocast(device, torch.bfloat16, enabled=has_fast_bfloat16(device))


def _optimisers(network: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for inner matrices and kernels; Adam for vectors, embeddings and the layers that touch pictures."""
    inner, outer = [], []
    trained = ((name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad)
    for name, parameter in trained:
        is_inner = parameter.dim() >= 2 and min(parameter.shape[:2]) >= 16 and "embedding" not in name
        (inner if is_inner else outer).append(parameter)
    adam = torch.optim.AdamW(outer, rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    return [Muon(inner, rate), adam] if inner else [adam]


def _progress_bar() -> Progress:
    return Progress(*Progress.get_default_columns()[1:3], TimeElapsedColumn(), TextColumn("{task.description}"))
