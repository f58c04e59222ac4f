"""Muon for matrices and convolutions, Adam for the rest.

A matrix's momentum is replaced by the nearest orthogonal one, so that every direction learns at the same pace. After
Jordan et al., "Muon" (2024), with the scale of Liu et al., "Muon is scalable for LLM training" (2025): updates as large
as Adam's, so one learning rate serves both.
"""

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
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group["lr"], group["momentum"])

    def _update(self, parameter: nn.Parameter, lr: float, momentum: float) -> None:
        state = self.state[parameter]
        if not state:
            state["average"] = torch.zeros_like(parameter)
        average = state["average"]
        average.lerp_(parameter.grad, 1 - momentum)
        ahead = parameter.grad.lerp(average, momentum)  # Nesterov's look ahead
        matrix = ahead.flatten(1)
        update = orthogonalised(matrix) * (0.2 * max(matrix.shape) ** 0.5)
        parameter.add_(update.view(ahead.shape), alpha=-lr)


def orthogonalised(matrix: Tensor, rounds: int = 5) -> Tensor:
    """About U V^T where `matrix` is U S V^T, by Newton and Schulz's iteration.

    Every round multiplies by a polynomial of the Gram matrix, so the rounds are done on that small square alone and
    their product meets the wide matrix once.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    product = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(rounds):
        factor = -4.7750 * gram + 2.0315 * gram @ gram
        factor.diagonal().add_(3.4445)
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x.T if is_tall else x
