"""The Brownian motion of a picture: a matter of its seed, whatever is asked of it and beside it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torchsde
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.sampling import brownian

SHAPE = (4, 4, 4)
SPAN = (0.0291675, 14.614642)
QUERIES = [(14.614642, 5.0), (5.0, 2.0), (2.0, 0.5), (0.5, 0.0291675)]


def draws(queries=QUERIES, *, shape=SHAPE, seed: int = 7, span=SPAN, source="CPU"):
    return brownian.draws(shape, seed, span, queries, source=source)


def test_it_is_the_tree_that_others_draw_from() -> None:
    tree = torchsde.BrownianTree(0.029168, torch.zeros(SHAPE), 14.614642, entropy=7)
    expected = [-tree(low, high) / math.sqrt(high - low) for high, low in QUERIES[:3]]
    torch.testing.assert_close(draws(QUERIES[:3], span=(0.029168, 14.614642)), torch.stack(expected))


@pytest.mark.parametrize("source", ["CPU", "NV"])
def test_an_increment_depends_on_the_seed_and_its_sigmas_alone(source: str) -> None:
    whole = draws(source=source)
    assert torch.equal(draws(QUERIES[2:3], source=source)[0], whole[2])
    assert torch.equal(draws(QUERIES[::-1], source=source), whole.flip(0))
    assert not torch.equal(draws(seed=8, source=source)[0], whole[0])


def test_the_sources_differ_and_do_not_disturb_each_other() -> None:
    before = draws()
    assert not torch.allclose(draws(source="NV"), before)
    assert torch.equal(draws(), before)


@pytest.mark.parametrize("source", ["CPU", "NV"])
def test_increments_add_up(source: str) -> None:
    whole, first, second = draws([(10.0, 1.0), (10.0, 4.0), (4.0, 1.0)], source=source)
    torch.testing.assert_close(whole * 3, first * math.sqrt(6) + second * math.sqrt(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("source", ["CPU", "NV"])
def test_the_noise_is_unit_noise(source: str) -> None:
    noise = draws(shape=(4, 32, 32), source=source)
    assert noise.shape == (4, 4, 32, 32)
    assert noise.dtype == torch.float32
    for one in noise:
        assert one.mean().abs() < 0.06
        assert one.std() == pytest.approx(1, abs=0.05)
    assert abs(torch.corrcoef(noise.flatten(1))[0, 1]) < 0.06


@pytest.mark.parametrize("query", [(20.0, 5.0), (1.0, 0.0), (14.614642229, 0.0291674), (20.0, 16.0)])
def test_a_query_beyond_the_span_is_cut_to_it(query: tuple[float, float]) -> None:
    assert draws([query]).isfinite().all()


@pytest.mark.parametrize("queries", [[], [(1.0, 1.0)], [(1.0, 1.0 + 1e-9)]])
def test_what_is_no_way_takes_no_noise(queries: list) -> None:
    assert draws(queries).shape == (len(queries), *SHAPE)
    assert not draws(queries).any()


def test_a_span_of_one_sigma_has_no_noise() -> None:
    assert not draws([(2.0, 2.0)], span=(2.0, 2.0)).any()


@given(
    seed=st.integers(0, 2**64 - 1),
    sigmas=st.lists(st.floats(1e-4, 10_000), min_size=2, max_size=5, unique=True),
)
@settings(max_examples=30, deadline=None)
def test_any_walk_gets_finite_noise(seed: int, sigmas: list[float]) -> None:
    sigmas = sorted(sigmas, reverse=True)
    queries = list(pairwise(sigmas))
    assert draws(queries, seed=seed, span=brownian.bounds(sigmas), shape=(2,)).isfinite().all()


def test_the_bounds_of_a_walk_leave_out_its_zero() -> None:
    assert brownian.bounds([14.6, 3.0, 0.5, 0.0]) == (0.5, 14.6)
    assert brownian.bounds([14.6, 3.0, 0.5]) == (0.5, 14.6)
