"""Rows of a network come out the same to the last bit, however many are asked for at once, on any processor."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.params.fields import Tiling
from shared.params.render import RenderParams
from tests.support import low_rank
from worker.engine.adapters.rows import adapted
from worker.engine.answers.tiling import seamless
from worker.engine.architectures.conditioning import Applied
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loading import batch_invariant
from worker.engine.loading import load as checkpoints
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render
from worker.engine.row_limits import RowLimits

SECONDS = 120
COUNTS = (1, 3, 4, 15, 16, 18)

Load = Callable[[RowLimits], Weights]


@pytest.fixture
def load(tiny_path: Path, cpu: Device) -> Load:
    return lambda row_limits: checkpoints.load(tiny_path, replace(cpu, row_limits=row_limits), torch.float32)


@pytest.fixture(params=[2, pytest.param(3, marks=pytest.mark.nightly)], ids=lambda threads: f"{threads} threads")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def eager() -> RowLimits:
    """RowLimits that measure at once whatever they meet."""
    return RowLimits(clock=lambda: 0.0)


def rows_of(
    weights: Weights, sides: tuple[int, int], tiling: Tiling = "none", adapters: Sequence[tuple[Applied, ...]] = ()
) -> Callable[[int, int], Tensor]:
    """Return what asks the U-Net for some rows of a drawn batch, which have `adapters`."""
    draw = torch.Generator().manual_seed(7)
    most = max(COUNTS)
    latents = torch.randn(most, 4, *sides, generator=draw).contiguous(memory_format=torch.channels_last)
    times = torch.rand(most, generator=draw) * 999
    text = torch.randn(most, 77, weights.unet.config["cross_attention_dim"], generator=draw)

    @torch.inference_mode()
    def rows(first: int, last: int) -> Tensor:
        with seamless(weights.unet, tiling), adapted(weights.unet, "unet", adapters[first:last], weights.device):
            call = latents[first:last], times[first:last], text[first:last]
            answer: Tensor = weights.unet(*call, return_dict=False)[0]
        return answer

    return rows


def assert_steady(rows: Callable[[int, int], Tensor]) -> None:
    pairs = torch.cat([rows(first, first + 2) for first in range(0, max(COUNTS), 2)])
    for count in COUNTS:
        assert torch.equal(rows(0, count), pairs[:count]), count
    assert torch.equal(rows(1, 4), pairs[1:4])


@pytest.mark.nightly  # by day before anything is measured and after
@pytest.mark.parametrize("sides", [(8, 8), (8, 16)], ids=str)
def test_rows_are_the_same_to_the_bit_whatever_company_they_have(load: Load, sides: tuple[int, int]) -> None:
    assert_steady(rows_of(load(eager()), sides))


@pytest.mark.nightly
@pytest.mark.parametrize("sides", [(8, 8), (34, 33)], ids=str)
def test_rows_are_the_same_to_the_bit_with_any_threads(load: Load, threads: int, sides: tuple[int, int]) -> None:
    assert threads == torch.get_num_threads()
    assert_steady(rows_of(load(eager()), sides))


@pytest.mark.parametrize("layer", [nn.GroupNorm(32, 64), nn.SiLU(), nn.Linear(33, 64), nn.Conv2d(64, 64, 3)], ids=str)
def test_a_layer_that_threads_share_gives_a_row_the_same_in_company(threads: int, layer: nn.Module) -> None:
    """More positions than a norm computes in one piece, and rows whose length is not a multiple of a vector."""
    assert threads == torch.get_num_threads()
    network = nn.Sequential(copy.deepcopy(layer))
    batch_invariant.make_batch_invariant(network, eager())
    rows = torch.randn(7, 64, 33, 33, generator=torch.Generator().manual_seed(1))
    rows = rows.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        alone = torch.cat([network(row) for row in rows.split(1)])
        for count in (2, 3, 4, 7):
            assert torch.equal(network(rows[:count]), alone[:count]), count


@pytest.mark.parametrize(
    ("kernel", "shape"),
    [(nn.GroupNorm(32, 64), (16, 64, 33, 33)), (nn.Linear(320, 640), (16, 320)), (nn.Conv2d(8, 8, 3), (16, 8, 9, 9))],
    ids=("norm", "product", "convolution"),
)
@torch.inference_mode()
def test_sums_in_another_order_show_in_many_values_so_that_one_sample_of_noise_suffices(
    threads: int, kernel: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> None:
    """PyTorch's own layers, which add in another order on some processors and with some numbers of threads."""
    assert threads == torch.get_num_threads()
    for seed in range(3):
        rows = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        rows = rows.contiguous(memory_format=torch.channels_last) if len(shape) > 2 else rows
        pairs = torch.cat([kernel(pair) for pair in rows.split(2)])
        for count in (3, 7, 16):
            share = float((kernel(rows[:count]) != pairs[:count]).float().mean())
            assert share == 0 or share > 0.01, (count, share)


def test_activations_are_computed_row_by_row_whatever_a_measurement_says(threads: int) -> None:
    """Of 15 rows of this size, threads compute some values at the ends of their shares by other code."""
    assert threads == torch.get_num_threads()
    network = nn.Sequential(nn.SiLU())
    trusting = RowLimits(clock=lambda: 0.0)
    batch_invariant.make_batch_invariant(network, trusting)
    for seed in range(8):
        rows = torch.randn(15, 32, 17, 17, generator=torch.Generator().manual_seed(seed))
        rows = rows.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            assert torch.equal(network(rows), torch.cat([network(row) for row in rows.split(1)])), seed
    assert trusting.known == {}


def test_rows_are_the_same_before_anything_is_measured_and_after(load: Load) -> None:
    before, after = (rows_of(load(row_limits), (8, 8)) for row_limits in (RowLimits(seconds=0), eager()))
    assert_steady(before)
    assert_steady(after)
    assert torch.equal(before(0, 7), after(0, 7))


@pytest.mark.parametrize("sides", [(9, 7), pytest.param((8, 8), marks=pytest.mark.nightly)], ids=str)
def test_rows_with_adapters_are_the_same_in_any_company_before_anything_is_measured_and_after(
    load: Load, sides: tuple[int, int]
) -> None:
    measured = [rows_with_adapters(load(row_limits), sides) for row_limits in (RowLimits(seconds=0), eager())]
    assert torch.equal(*measured)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("tiling", ["none", "both"])
def test_rows_with_adapters_are_the_same_in_any_company_with_any_threads(
    load: Load, threads: int, tiling: Tiling
) -> None:
    assert threads == torch.get_num_threads()
    measured = [rows_with_adapters(load(row_limits), (9, 7), tiling) for row_limits in (RowLimits(seconds=0), eager())]
    assert torch.equal(*measured)


def rows_with_adapters(weights: Weights, sides: tuple[int, int], tiling: Tiling = "none") -> Tensor:
    """Return rows with no adapter, one or several, of which company changes no bit.

    With sides of an odd length the rows begin at places in memory of any alignment.
    """
    one, other, wide = (low_rank.drawn(weights, seed, rank, layers=None) for seed, rank in ((1, 4), (2, 4), (3, 9)))
    three = (Applied(one, -1.0), Applied(wide, 1.5, 3), Applied(other, 0.2))
    sets: list[tuple[Applied, ...]] = [(), (Applied(one, 0.5),), three, (Applied(other, 1.0),)]
    rows = rows_of(weights, sides, tiling, [sets[place // 2 % len(sets)] for place in range(max(COUNTS))])
    alone = torch.cat([rows(place, place + 1) for place in range(8)])
    for first, last in ((0, 8), (0, 3), (1, 3), (3, 8), (6, 8)):
        assert torch.equal(rows(first, last), alone[first:last]), (first, last)
    return alone


@pytest.mark.parametrize("tiling", [pytest.param("x", marks=pytest.mark.nightly), "both"])
def test_rows_without_seams_are_the_same_in_company_too(load: Load, tiling: Tiling) -> None:
    assert_steady(rows_of(load(eager()), (8, 8), tiling))


def rounding(kernel: Callable[..., Tensor], place: int, is_off: Callable[[int], bool]) -> Callable[..., Tensor]:
    """`kernel`, of another processor, which rounds otherwise for some counts of rows; they are argument `place`."""

    def rounded(*arguments: Any) -> Tensor:
        answer = kernel(*arguments)
        return answer * (1 + 2**-22) if is_off(len(arguments[place])) else answer

    return rounded


OTHERS = {
    "from 16 rows on": lambda rows: rows >= 16,
    "a row alone": lambda rows: rows == 1,
    "a row alone, and from 16 on": lambda rows: rows == 1 or rows >= 16,
    "odd counts": lambda rows: rows % 2 == 1,
    "more than two": lambda rows: rows > 2,
}


BY_DAY = ("a row alone, and from 16 on",)


@pytest.fixture(params=[one if one in BY_DAY else pytest.param(one, marks=pytest.mark.nightly) for one in OTHERS])
def other(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Another processor, by what it rounds otherwise."""
    is_off = OTHERS[request.param]
    monkeypatch.setattr(batch_invariant, "product", rounding(batch_invariant.product, 0, is_off))
    monkeypatch.setattr(batch_invariant, "convolution", rounding(batch_invariant.convolution, 4, is_off))
    return str(request.param)


def test_a_processor_that_rounds_otherwise_for_some_counts_is_given_others(load: Load, other: str) -> None:
    row_limits = eager()
    assert_steady(rows_of(load(row_limits), (8, 8)))
    products = [known for shape, known in row_limits.known.items() if shape.startswith(("linear", "convolution"))]
    most = {"from 16 rows on": 15, "a row alone, and from 16 on": 15, "odd counts": 2, "more than two": 2}
    assert max(known.rows for known in products) == most.get(other, max(COUNTS))
    if "alone" in other or "odd" in other:
        assert not any(known.is_lone_alike for known in products)


def test_pictures_are_the_same_in_company_on_a_processor_that_rounds_otherwise(
    load: Load, cpu: Device, params: RenderParams, other: str
) -> None:
    assert other
    weights = load(RowLimits())
    changes = [{"seed": seed, "steps": 2, "cfg_scale": 1.0 if seed == 8 else 7.0} for seed in range(9)]
    jobs = [params.model_copy(update=one) for one in changes]
    engine = Engine(cpu)
    engine.start()
    alone = [engine.render(render(job, Kit(weights))).result(SECONDS) for job in jobs]
    runs = [engine.render(render(job, Kit(weights))) for job in jobs]
    together = [run.result(SECONDS) for run in runs]
    engine.stop()
    assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))


def test_every_layer_that_can_round_by_its_company_is_steady(load: Load) -> None:
    """Those that compute each row by itself may stay as they are."""
    kinds = {type(layer) for layer in load(eager()).unet.modules() if not list(layer.children())}
    by_row = {nn.LayerNorm, nn.Dropout, nn.Identity}
    others = {kind for kind in kinds if kind.__module__.startswith("torch.") and kind not in by_row}
    assert others == set()
