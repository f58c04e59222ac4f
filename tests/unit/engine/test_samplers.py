"""Properties of every sampler, whatever its formulas: calls, noise, options, and how it treats the card."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from shared.errors import RenderError
from shared.params.groups import Sampling
from shared.params.samplers import AUTOMATIC
from shared.params.samplers import SAMPLERS as FACTS
from tests.support.flows import finely, mixture
from tests.support.walks import Denoiser, finished
from worker.engine.requests import Work
from worker.engine.sampling import schedules
from worker.engine.sampling.algebra import ancestral_step
from worker.engine.sampling.registry import SAMPLERS, options_of, plan
from worker.engine.sigma_table import SigmaTable

SD1 = SigmaTable.scaled_linear()
PLAIN = Sampling()
CHURNING = Sampling(eta=1.0, s_churn=5.0, s_noise=1.01)
ADAPTIVE = [name for name, facts in FACTS.items() if facts.is_adaptive]
PLANNED = [name for name in FACTS if name not in ADAPTIVE]


def walk(name: str, steps: int = 5, options: Sampling = PLAIN, schedule: str = AUTOMATIC) -> list[float]:
    return schedules.sigmas(SD1, sampler=name, schedule=schedule, steps=steps, options=options)


def ones(sigma: float, sigma_next: float) -> Tensor:
    return torch.ones(4)


def no_noise(sigma: float, sigma_next: float) -> Tensor:
    raise AssertionError("this walk needs no noise")


@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.parametrize("options", [PLAIN, CHURNING])
@pytest.mark.parametrize("steps", [1, 2, 3, 20, pytest.param(36, marks=pytest.mark.nightly)])
def test_a_plan_tells_the_calls_and_the_noise_of_a_walk(name: str, options: Sampling, steps: int) -> None:
    model, queries = Denoiser.of(name), []
    sigmas = walk(name, steps, options)
    finished(
        SAMPLERS[name](model, torch.ones(4), sigmas, lambda *query: queries.append(query) or torch.ones(4), options)
    )
    known = plan(name, sigmas, options)
    assert known.calls == len(model.sigmas)
    assert known.queries == tuple(queries)


@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 20, 30, 36, 40, 150])
def test_the_facts_know_the_calls_of_a_plan(name: str, steps: int) -> None:
    assert plan(name, walk(name, steps)).calls == FACTS[name].calls(steps)


@pytest.mark.parametrize("name", FACTS)
def test_what_is_ancestral_or_brownian_draws_noise_and_nothing_else_does(name: str) -> None:
    facts = FACTS[name]
    draws = bool(plan(name, walk(name, 20)).queries)
    assert draws == (facts.is_ancestral and not facts.is_adaptive)
    assert facts.is_ancestral or not facts.uses_brownian


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if "eta" in facts.options])
def test_without_eta_no_noise_is_drawn(name: str) -> None:
    options = Sampling(eta=0.0)
    finished(SAMPLERS[name](Denoiser.of(name), torch.ones(4), walk(name), no_noise, options))


@pytest.mark.parametrize("name", FACTS)
def test_a_sampler_takes_its_own_options_and_no_others(name: str) -> None:
    given_all = Sampling(eta=0.25, s_churn=3.0, s_tmin=0.5, s_tmax=5.0, s_noise=0.9)
    options, neutral = options_of(name, given_all), options_of("LMS", given_all)
    for field in ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise"):
        expected = getattr(given_all if field in FACTS[name].options else neutral, field)
        assert getattr(options, field) == expected or field == "eta"
    assert options_of(name, PLAIN).eta == FACTS[name].default_eta
    assert options_of(name, PLAIN).s_tmax == math.inf


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if not facts.spaces_timesteps])
def test_a_sampler_of_one_step_to_zero_returns_what_the_model_said(name: str) -> None:
    x = torch.linspace(-10, 10, 5, dtype=torch.float64)
    sigmas = [SD1.highest, 0.0]
    result = finished(SAMPLERS[name](Denoiser(), x, sigmas, no_noise))
    torch.testing.assert_close(result, torch.tanh(x / (1 + sigmas[0])), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FACTS)
def test_a_picture_of_one_value_is_found(name: str) -> None:
    target = torch.full((4,), 0.5, dtype=torch.float64)

    def model(x: Tensor, sigma: float):
        yield from ()
        return (target, target) if FACTS[name].needs_unconditional else target

    sigmas = walk(name, 20)
    draws = torch.Generator().manual_seed(1)
    noise = lambda *_: torch.randn(4, generator=draws, dtype=torch.float64)  # noqa: E731
    x = target + noise() * sigmas[0]
    result = finished(SAMPLERS[name](model, x, sigmas, noise))
    assert (result - target).abs().max() < 5 * SD1.sigma(1)  # where DDIM's walk ends; some noise may be left


class NothingRead(TorchDispatchMode):
    """Fails where a number is read from a tensor: on a card that waits for everything before it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a sampler read a number from the card"
        assert not func._schema.is_mutable, f"a sampler changed a tensor in place: {func}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("options", [PLAIN, CHURNING])
def test_a_sampler_reads_no_number_from_the_card_and_changes_nothing_in_place(name: str, options: Sampling) -> None:
    asks = SAMPLERS[name](Denoiser.of(name), torch.ones(4), walk(name, 20, options), ones, options)
    answer = None
    while True:
        try:
            with NothingRead():
                asked = asks.send(answer)
        except StopIteration:
            return
        assert isinstance(asked, Work)
        assert FACTS[name].is_adaptive
        answer = asked.function()  # off the engine's thread, where the card may be read


@pytest.mark.parametrize("name", FACTS)
def test_a_sampler_leaves_its_start_as_it_was(name: str) -> None:
    x = torch.ones(4)
    finished(SAMPLERS[name](Denoiser.of(name), x, walk(name), ones))
    assert torch.equal(x, torch.ones(4))


@pytest.mark.parametrize("name", FACTS)
def test_the_same_noise_gives_the_same_latent(name: str) -> None:
    def latent() -> Tensor:
        draws = torch.Generator().manual_seed(5)
        noise = lambda *_: torch.randn(4, generator=draws)  # noqa: E731
        sigmas = walk(name, 8)
        return finished(SAMPLERS[name](Denoiser.of(name), noise() * sigmas[0], sigmas, noise))

    assert torch.equal(latent(), latent())


FIRST_ORDER = {"Euler", "Euler a", "DDIM", "DDIM CFG++"}
WITHOUT_ORDER = {"LCM", "Restart", *ADAPTIVE}  # it follows no flow; it climbs again in long walks; it has no steps


@pytest.mark.parametrize("name", [name for name in FACTS if name not in WITHOUT_ORDER])
def test_half_as_long_steps_divide_the_error_as_the_order_of_the_sampler_says(name: str) -> None:
    """Without noise, along even steps in log sigma. A start of lower order holds samplers to the second."""

    def model(x: Tensor, sigma: float):
        yield from ()
        found = mixture(x, sigma)
        return (found, found) if FACTS[name].needs_unconditional else found

    def error(steps: int) -> float:
        sigmas = [SD1.highest * (SD1.lowest / SD1.highest) ** (step / steps) for step in range(steps + 1)]
        options = Sampling(eta=0.0) if "eta" in FACTS[name].options else PLAIN
        end = finished(SAMPLERS[name](model, start, sigmas, no_noise, options))
        return float((end - right).square().mean().sqrt())

    start = torch.randn(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * SD1.highest
    right = finely(mixture, start, SD1.highest, tolerance=1e-9)(SD1.lowest)
    order = 1 if name in FIRST_ORDER else 2
    assert error(160) < error(40) / 4 ** (order - 0.1)


SHARES = st.floats(0, 1)
OPTIONS = st.builds(
    Sampling,
    eta=st.none() | SHARES,
    s_churn=st.floats(0, 1000),
    s_tmin=st.floats(0, 100),
    s_tmax=st.floats(0, 100),
    s_noise=st.floats(0, 10),
    sigma_min=st.just(0.0) | st.floats(1e-4, 0.1),  # below the highest of each table
    sigma_max=st.just(0.0) | st.floats(1.001, 10_000),
    rho=st.floats(0, 100),
    discard_next_to_last_sigma=st.none() | st.booleans(),
)


@pytest.mark.parametrize("rho", [2, 7, 11, 20])
def test_lms_stays_finite_where_the_last_step_is_much_longer_than_those_before(rho):
    sigmas = walk("LMS", 56, Sampling(rho=rho), "polyexponential")
    start = torch.linspace(-3, 3, 4) * sigmas[0]
    result = finished(SAMPLERS["LMS"](Denoiser.of("LMS"), start, sigmas, no_noise, PLAIN))
    assert result.isfinite().all()
    assert result.abs().max() < 100


@given(data=st.data(), name=st.sampled_from(PLANNED), steps=st.integers(1, 60), options=OPTIONS)
@settings(max_examples=100, deadline=None)
def test_a_walk_stays_finite_whatever_the_options(data, name: str, steps: int, options: Sampling) -> None:
    schedule = data.draw(st.sampled_from(FACTS[name].schedules))
    table = data.draw(st.sampled_from([SD1, SD1.at_zero_terminal_snr(), SigmaTable.scaled_linear(steps=3)]))
    kept = data.draw(st.none() | st.integers(0, steps - 1))
    sigmas = schedules.sigmas(table, sampler=name, schedule=schedule, steps=steps, options=options, run_last=kept)
    assert sigmas == sorted(set(sigmas), reverse=True)
    start = torch.linspace(-3, 3, 4) * sigmas[0]
    result = finished(SAMPLERS[name](Denoiser.of(name), start, sigmas, ones, options))
    assert result.isfinite().all()
    assert plan(name, sigmas, options).calls >= 1


@pytest.mark.parametrize(("sigma", "sigma_next"), [(14.6, 9.1), (1.0, 0.5), (0.03, 0.029)])
def test_an_ancestral_step_ends_at_the_next_sigma(sigma: float, sigma_next: float) -> None:
    down, up = ancestral_step(sigma, sigma_next)
    assert math.hypot(down, up) == pytest.approx(sigma_next)
    assert ancestral_step(sigma, 0.0) == (0.0, 0.0)
    assert ancestral_step(sigma, sigma_next, eta=0.0) == (sigma_next, 0.0)


def test_churn_stays_within_its_bounds() -> None:
    options = Sampling(s_churn=100.0, s_tmin=1.0, s_tmax=5.0)
    model, sigmas = Denoiser(), walk("Euler", 20)
    finished(SAMPLERS["Euler"](model, torch.ones(4), sigmas, ones, options))
    raised = {sigma for sigma, seen in zip(sigmas, model.sigmas, strict=False) if seen > sigma}
    assert raised == {sigma for sigma in sigmas if 1.0 <= sigma <= 5.0}


@pytest.mark.parametrize("name", ADAPTIVE)
def test_an_adaptive_walk_does_not_depend_on_the_steps_that_were_asked(name: str) -> None:
    x = torch.linspace(-20, 20, 4)
    results = [finished(SAMPLERS[name](Denoiser(), x, walk(name, steps), ones)) for steps in (1, 20, 50)]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


@pytest.mark.parametrize("name", ADAPTIVE)
def test_an_adaptive_walk_that_meets_no_number_says_so(name: str) -> None:
    def model(x: Tensor, sigma: float):
        yield from ()
        return x * math.nan

    with pytest.raises(RenderError, match="no longer finite"):
        finished(SAMPLERS[name](model, torch.ones(4), walk(name), ones))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_an_adaptive_walk_that_never_settles_ends(name: str) -> None:
    signs = itertools.cycle([1e6, -1e6])

    def model(x: Tensor, sigma: float):
        yield from ()
        return torch.full_like(x, next(signs))

    with pytest.raises(RenderError, match="no steps short enough"):
        finished(SAMPLERS[name](model, torch.ones(4), walk(name), ones))
