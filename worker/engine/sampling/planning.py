"""What a walk down the sigmas will take, before it is taken: by walking it with plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.params.samplers import ADAPTIVE_CALLS, SAMPLERS
from worker.engine.requests import Asks
from worker.engine.sampling.algebra import Algorithm, Options


@dataclass(frozen=True)
class Plan:
    """Model calls, and what noise is asked for: (sigma, next sigma), in order."""

    calls: int
    queries: tuple[tuple[float, float], ...]


def walked(algorithm: Algorithm, name: str, sigmas: Sequence[float], options: Options) -> Plan:
    """Return what `algorithm` asks for along `sigmas`. For an adaptive one: more calls than it usually takes, and no
    noise, which it asks for on its way.
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
        raise AssertionError(f"{name} asks for more than its model")
    return Plan(len(calls), tuple(queries))
