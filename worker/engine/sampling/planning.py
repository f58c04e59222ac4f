"""The model calls and noise of a sampler along some sigmas, counted ahead by running it with plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.params.samplers import ADAPTIVE_CALLS, SAMPLERS
from worker.engine.requests import Asks
from worker.engine.sampling.algebra import Algorithm, Options


@dataclass(frozen=True)
class Plan:
    """The number of model calls, and the noise queries (sigma, next sigma), in order."""

    calls: int
    queries: tuple[tuple[float, float], ...]


def counted(algorithm: Algorithm, name: str, sigmas: Sequence[float], options: Options) -> Plan:
    """Return the calls and queries of `algorithm` along `sigmas`. For an adaptive one: more calls than usual, and no
    queries, because it draws its noise on the way.
    """
    if SAMPLERS[name].is_adaptive:
        return Plan(ADAPTIVE_CALLS, ())
    calls: list[float] = []
    queries: list[tuple[float, float]] = []

    def model(x: Any, sigma: float) -> Asks[Any]:  # noqa: ANN401 - numbers stand for tensors
        calls.append(sigma)
        yield from ()
        return (x, x) if SAMPLERS[name].needs_unconditional else x

    def noise(sigma: float, sigma_next: float) -> Any:  # noqa: ANN401 - as above
        queries.append((sigma, sigma_next))
        return 0.0

    start: Any = 0.0
    for _ in algorithm(model, start, sigmas, noise, options):
        raise AssertionError(f"{name} yields other requests than its model")
    return Plan(len(calls), tuple(queries))
