"""Samplers along every schedule on small SDXL checkpoints, against a fine integration of the same flow in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
import torch
from torch import Tensor

from shared.params.groups import Sampling
from shared.params.render import RenderParams
from shared.params.samplers import AUTOMATIC
from shared.params.samplers import SAMPLERS as FACTS
from tests.support import flows
from tests.support.flows import Denoised, Way
from tests.support.small_checkpoints import build
from worker.engine.architectures.weights import Weights
from worker.engine.devices import device
from worker.engine.guidance import conditioning
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.loop.runs import Step
from worker.engine.pipelines.denoise_pass import Draws, Pass, drawn, modelled, planned, sampled
from worker.engine.requests import Asks
from worker.engine.sigma_table import ALIGNED_XL, PURE_NOISE

SECONDS: Final = 1200
STEPS: Final = 20
KINDS: Final = ("sdxl", "sdxl-velocity")  # the second one begins at zero terminal SNR
PAIRS: Final = [
    (sampler, schedule)
    for sampler, facts in FACTS.items()
    for schedule in (facts.schedules[1:] or (AUTOMATIC,))  # `automatic` is one of the others, or the only one
]
FEW_PAIRS: Final = [  # of several families, from pure noise, where mistakes are largest
    ("DPM++ 2M", "exponential"),
    ("DPM++ SDE", "karras"),
    ("Euler a", "sgm_uniform"),
    ("DPM adaptive", AUTOMATIC),
    ("LCM", "normal"),
]
FIRST_ORDER: Final = {"Euler", "Euler a", "DDIM"}
BOUNDS: Final = {1: 0.3, 2: 0.1}
"""Order -> the largest error of 20 steps (root mean square), of latents whose standard deviation is about 1."""
COARSE: Final = {("sdxl", "beta"), ("sdxl-velocity", "karras")}
"""Schedules with few steps where most of a picture forms: samplers of any order are held to the first order's bound."""
RECURRENCES: Final = {"LCM", "DDIM CFG++"}  # they follow no flow: each step is the formula of their papers
EVEN: Final = "exponential"  # the schedule whose steps have one length in log sigma
WITHOUT_ORDER: Final = {"LCM", "Restart"}  # it follows no flow; it climbs again in long walks
ROUNDING: Final = 1e-3
LAST_STEP: Final = 1e-3  # the error of the one from the lowest sigma to 0, which has the same length in all walks


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A small checkpoint as the engine has it, in float32, and what the same one denoises in float64."""

    name: str
    weights: Weights
    positive: Denoised
    negative: Denoised
    way: Way


@dataclass(frozen=True, eq=False)
class Walk:
    """What a sampler did: its pass, its calls, the noise that it drew and the latent that it came to."""

    plan: Pass
    calls: int
    noise: list[Tensor]
    latent: Tensor


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(device("cpu:0"))
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def checkpoint(engine: Engine, small_file: Callable[[str], Path]) -> Callable[[str], Checkpoint]:
    """Load a small checkpoint, once a module, and integrate its flow."""
    return cache(lambda name: _checkpoint(name, small_file(name), engine))


def test_samplers_follow_the_flow_of_a_checkpoint_and_make_the_calls_that_are_planned(checkpoint, engine) -> None:
    check(checkpoint("sdxl-velocity"), FEW_PAIRS, engine)


@pytest.mark.nightly
@pytest.mark.parametrize("sampler", FACTS)
@pytest.mark.parametrize("name", KINDS)
def test_every_sampler_follows_the_flow_along_every_schedule(name, sampler, checkpoint, engine) -> None:
    check(checkpoint(name), [pair for pair in PAIRS if pair[0] == sampler], engine)


@pytest.mark.nightly
@pytest.mark.parametrize("sampler", [name for name in FACTS if (name, EVEN) in PAIRS and name not in WITHOUT_ORDER])
@pytest.mark.parametrize("name", KINDS)
def test_half_as_long_steps_follow_the_flow_as_much_closer_as_the_order_says(name, sampler, checkpoint, engine) -> None:
    few, many = (started(engine, checkpoint(name), params(name, sampler, EVEN, steps)) for steps in (20, 40))
    error, smaller = (distance(checkpoint(name), finished()) for finished in (few, many))
    print(f"{name:14} {sampler:18} error {error:.5f}, with half as long steps {smaller:.5f}")  # noqa: T201
    assert smaller < max(error / 2 ** (order(sampler) - 0.3), LAST_STEP)


def order(sampler: str) -> int:
    return 1 if sampler in FIRST_ORDER else 2


def distance(checkpoint: Checkpoint, walk: Walk) -> float:
    """Return the root mean square of the error of a walk."""
    return float((walk.latent.double() - expected(checkpoint, walk)).square().mean().sqrt())


def check(checkpoint: Checkpoint, pairs: list[tuple[str, str]], engine: Engine) -> None:
    """Assert the calls and the error of walks along `pairs`, all in flight at once."""
    runs = {pair: started(engine, checkpoint, params(checkpoint.name, *pair)) for pair in pairs}
    too_far = {}
    for (sampler, schedule), finished in runs.items():
        walk = finished()
        error = distance(checkpoint, walk)
        bound = BOUNDS[1 if (checkpoint.name, schedule) in COARSE else order(sampler)]
        bound = ROUNDING if sampler in RECURRENCES else bound
        print(f"{checkpoint.name:14} {sampler:18} {schedule:17} {walk.calls:3} calls, error {error:.4f}")  # noqa: T201
        if walk.plan.facts.is_adaptive:
            assert walk.calls <= walk.plan.plan.calls
        else:
            assert walk.calls == walk.plan.plan.calls
        if not error <= bound:
            too_far[sampler, schedule] = error
    assert not too_far


def params(name: str, sampler: str, schedule: str, steps: int = STEPS) -> RenderParams:
    facts = FACTS[sampler]
    return RenderParams(
        prompt="sea at night",
        negative_prompt="fog",
        checkpoint=name,
        width=64,
        height=64,
        steps=18 if sampler == "Restart" else steps,  # from 20 on it climbs by noise
        cfg_scale=facts.scale_divisor,
        seed=3,
        sampler=sampler,
        schedule=schedule,
        sampling=Sampling(eta=0.0) if "eta" in facts.options else Sampling(),
    )


def _checkpoint(name: str, path: Path, engine: Engine) -> Checkpoint:
    weights = load.load(path, engine.device, torch.float32)
    assert weights.sigmas.aligned == ALIGNED_XL
    assert (weights.sigmas.highest > PURE_NOISE) == (name == "sdxl-velocity")
    flows.smooth(weights.unet, weights.sigmas, weights.prediction)
    prepared = conditioning.prepare(weights, params(name, "Euler", AUTOMATIC), calls=1)
    prompt = engine.render(prepared).result(SECONDS)
    unet = flows.smooth(build(name).unet.double(), weights.sigmas, weights.prediction)
    positive, negative = (
        flows.of_network(unet, weights.sigmas, weights.prediction, term.conditioning)
        for term in (*prompt.conditional(0), prompt.unconditional(0))
    )
    highest = weights.sigmas.highest * 1.001  # Align Your Steps begins above the table's own end
    start = torch.randn(4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * highest
    way = flows.finely(positive, start, highest, tolerance=1e-4)
    return Checkpoint(name, weights, positive, negative, way)


def started(engine: Engine, checkpoint: Checkpoint, params: RenderParams) -> Callable[[], Walk]:
    """Start a walk from where the flow is at its first sigma; return a function that waits for it."""
    noise: list[Tensor] = []
    calls: list[Step] = []

    def latent() -> Asks[tuple[Pass, Tensor]]:
        this_pass = planned(params, checkpoint.weights)
        draws = yield from drawn(this_pass)

        def step(sigma: float, sigma_next: float) -> Tensor:
            noise.append(draws.step(sigma, sigma_next))
            return noise[-1]

        model = yield from modelled(this_pass)
        x = checkpoint.way(this_pass.sigmas[0]).float()
        return this_pass, (yield from sampled(this_pass, model, x, Draws(draws.first, step)))

    run = engine.render(latent(), on_step=calls.append)

    def finished() -> Walk:
        plan, found = run.result(SECONDS)
        return Walk(plan, len(calls), noise, found)

    return finished


def expected(checkpoint: Checkpoint, walk: Walk) -> Tensor:
    """Return where the flow is at the last sigma of a walk, or where the recurrence of its sampler leads."""
    sigmas, facts = walk.plan.sigmas, walk.plan.facts
    x = _repeated(checkpoint, walk) if facts.name in RECURRENCES else checkpoint.way(sigmas[-1])
    return x / math.hypot(1, sigmas[-1]) if facts.uses_network_scale else x


def _repeated(checkpoint: Checkpoint, walk: Walk) -> Tensor:
    """Return the end of LCM's or CFG++'s steps, with the noise of `walk`."""
    noise, x = iter(walk.noise), checkpoint.way(walk.plan.sigmas[0])
    for sigma, sigma_next in pairwise(walk.plan.sigmas):
        if walk.plan.facts.needs_unconditional:
            x = checkpoint.positive(x, sigma) + (x - checkpoint.negative(x, sigma)) * (sigma_next / sigma)
        else:
            x = checkpoint.positive(x, sigma)
            x = x + next(noise).double() * sigma_next if sigma_next else x
    return x
