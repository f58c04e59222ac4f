"""Muon for matrices and convolutions, Adam for the rest.

A matrix's momentum is replaced by the nearest orthogonal one, so that every direction learns at the same pace. After
Jordan et al., "Muon" (2024), with the scale of Liu et al., "Muon is scalable for LLM training" (2025): updates as large
as Adam's, so one learning rate serves both.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for parameters of two and more dimensions, each seen as a matrix [out, all else]."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        del closure  # part of torch's signature
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            ahead = self._ahead(trained, group["momentum"])
            alike = defaultdict(list)
            for parameter, direction in zip(trained, ahead, strict=True):
                alike[_as_matrix(parameter).shape].append((parameter, direction))
            for shape, members in alike.items():
                updates = orthogonalised(torch.stack([_as_matrix(direction) for _, direction in members]))
                for (parameter, _), update in zip(members, updates, strict=True):
                    parameter.add_(_as_kernel(update, parameter), alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)

    def _ahead(self, trained: list[nn.Parameter], momentum: float) -> list[Tensor]:
        """The gradients' running averages, with Nesterov's look ahead."""
        for parameter in trained:
            if not self.state[parameter]:
                self.state[parameter]["average"] = torch.zeros_like(parameter)
        averages = [self.state[parameter]["average"] for parameter in trained]
        gradients = [parameter.grad for parameter in trained]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        return [gradient.lerp(average, momentum) for gradient, average in zip(gradients, averages, strict=True)]


def orthogonalised(matrices: Tensor, rounds: int = 5) -> Tensor:
    """About U V^T for each of the matrices U S V^T [count, rows, columns], by Newton and Schulz's iteration.

    In bfloat16, which the iteration forgives, where the hardware multiplies it fastest: every round starts from the
    matrix itself and not from its Gram matrix of the round before, whose rounding errors would grow. A processor
    without instructions for bfloat16 takes three times as long with it as with float32.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if has_fast_bfloat16(x.device.type):
        x = x.bfloat16()
    for _ in range(rounds):
        gram = x @ x.mT
        factor = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, factor, x, beta=3.4445)
    return x.mT if is_tall else x


def has_fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 is faster than float32: on cards, and on processors with instructions for it."""
    return device != "cpu" or bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _as_matrix(kernel: Tensor) -> Tensor:
    """[out, all else]; the columns in the order of a kernel in channels_last, which costs no copy there."""
    return kernel.movedim(1, -1).flatten(1) if kernel.dim() > 2 else kernel


def _as_kernel(matrix: Tensor, like: Tensor) -> Tensor:
    """What `_as_matrix` was given, from what it answered."""
    return matrix.reshape(like.movedim(1, -1).shape).movedim(-1, 1) if like.dim() > 2 else matrix
