"""How many rows may share a call: measured bit by bit, within a time, and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest
import torch
from torch import Tensor

from worker.engine.row_limits import Kernel, RowLimit, RowLimits, fits, measure, within_limit


def rounding(is_off: Callable[[int], bool]) -> Kernel:
    """A kernel that rounds otherwise for some counts of rows."""

    def kernel(rows: Tensor) -> Tensor:
        return rows * 3 + (1e-6 * rows if is_off(len(rows)) else 0)

    return kernel


def by_place(rows: Tensor) -> Tensor:
    """A kernel that rounds otherwise in the first place of a call."""
    answer = rows * 3
    answer[0] += 1e-3
    return answer


def steps(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much each time that it is read."""
    ticks: Iterator[int] = count()
    return lambda: next(ticks) * seconds


@pytest.mark.parametrize(
    ("is_off", "known"),
    [
        (lambda _: False, RowLimit(20, is_final=False, is_lone_alike=True)),
        (lambda rows: rows >= 16, RowLimit(15, is_final=True, is_lone_alike=True)),
        (lambda rows: rows == 5, RowLimit(4, is_final=True, is_lone_alike=True)),
        (lambda rows: rows > 2, RowLimit(2, is_final=True, is_lone_alike=True)),
        (lambda rows: rows == 1, RowLimit(20, is_final=False, is_lone_alike=False)),
        (lambda rows: rows == 1 or rows >= 16, RowLimit(15, is_final=True, is_lone_alike=False)),
    ],
)
def test_the_limit_is_the_largest_count_up_to_which_all_are_like_two(
    is_off: Callable[[int], bool], known: RowLimit
) -> None:
    assert measure(rounding(is_off), torch.zeros(20, 8), RowLimit(2), 2) == known


def test_rows_go_one_by_one_where_a_place_in_a_pair_matters() -> None:
    found = measure(by_place, torch.zeros(4, 8), RowLimit(2), 2)
    assert found == RowLimit(1, is_final=True, is_lone_alike=True)
    rows = torch.randn(5, 8)
    assert torch.equal(within_limit(by_place, rows, found), torch.cat([by_place(row[None]) for row in rows]))


@pytest.mark.parametrize("most", [1, 2, 3, 15])
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 7, 16, 31])
def test_no_call_holds_more_than_its_limit_nor_a_row_alone_that_is_another_then(most: int, rows: int) -> None:
    held: list[int] = []

    def kernel(some: Tensor) -> Tensor:
        held.append(len(some))
        return some * 2

    given = torch.randn(rows, 3)
    assert torch.equal(within_limit(kernel, given, RowLimit(most, is_lone_alike=most == 1)), given * 2)
    assert max(held) <= max(most, 0 if rows else 1)
    assert most == 1 or 1 not in held


def test_what_is_measured_is_noise_laid_out_as_the_rows_are() -> None:
    seen: list[tuple[int, ...]] = []

    def kernel(rows: Tensor) -> Tensor:
        seen.append(rows.stride()[1:])
        assert rows.count_nonzero() > 0
        return rows * 3

    halves = torch.zeros(4, 6, 10).chunk(2, dim=-1)
    assert measure(kernel, halves[1], RowLimit(1, is_lone_alike=True), 1).rows == 4
    pictures = torch.zeros(3, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    assert measure(kernel, pictures, RowLimit(1, is_lone_alike=True), 1).rows == 3
    assert set(seen) == {(10, 1), (1, 20, 4)}


def test_a_layer_of_zeros_and_rows_that_share_memory_prove_nothing() -> None:
    assert measure(lambda rows: rows * 0, torch.zeros(4, 8), RowLimit(2), 2) == RowLimit(2)
    assert measure(lambda rows: rows * 2, torch.zeros(4, 1).expand(4, 8), RowLimit(2), 2) == RowLimit(2)


def test_until_the_time_for_it_has_come_the_limit_is_the_fewest() -> None:
    layer = RowLimits(seconds=0).layer("linear 8>8", 2)
    held: list[int] = []

    def kernel(rows: Tensor) -> Tensor:
        held.append(len(rows))
        return rows * 2

    layer.answer(kernel, torch.zeros(5, 8))
    layer.answer(kernel, torch.zeros(1, 8))
    assert held == [2, 2, 2, 2]


def test_measuring_takes_its_seconds_in_all_and_pauses_for_as_long_as_it_took() -> None:
    """A clock that goes on by 10 ms each time it is read: ten counts at a time, and then a pause."""
    row_limits = RowLimits(seconds=0.3, clock=steps(0.01))
    layer = row_limits.layer("linear 8>8", 2)
    rows = torch.zeros(40, 8)
    found = []
    for _ in range(200):
        layer.answer(rounding(lambda _: False), rows)
        found.append(next(iter(row_limits.known.values())).rows)
    assert 2 < found[0] <= 12
    assert found[1] == found[0]
    assert found[0] < found[-1] < 40


def test_what_is_known_grows_with_the_rows_that_are_asked_for() -> None:
    row_limits = RowLimits(seconds=2, clock=lambda: 0.0)
    layer = row_limits.layer("linear 8>8", 2)
    for rows, known in ((2, 2), (1, 2), (5, 5), (3, 5), (9, 9)):
        layer.answer(rounding(lambda _: False), torch.zeros(rows, 8))
        assert [one.rows for one in row_limits.known.values()] == [known]


def test_a_pair_that_was_not_measured_yet_is_measured_later() -> None:
    """By a clock that stands still for the first layer, so that the second has to wait out its pause."""
    time = [0.0]
    row_limits = RowLimits(seconds=2, clock=lambda: time[0])

    def slow(rows: Tensor) -> Tensor:
        time[0] += 0.05
        return rows * 3

    first, second = (row_limits.layer(text, 2) for text in ("linear 8>8", "linear 8>9"))
    rows = torch.zeros(2, 8)
    first.answer(slow, rows)
    second.answer(by_place, rows)
    assert len(row_limits.known) == 1
    time[0] += 1
    second.answer(by_place, rows)
    assert list(row_limits.known.values())[1].rows == 1
    drawn = torch.randn(2, 8)
    assert torch.equal(second.answer(by_place, drawn), torch.cat([by_place(row) for row in drawn.split(1)]))


def test_a_row_alone_fits_only_where_it_comes_out_alike() -> None:
    assert fits(RowLimit(4, is_lone_alike=True), 1)
    assert not fits(RowLimit(4, is_lone_alike=False), 1)
    assert not fits(RowLimit(4), 1)
    assert fits(RowLimit(4), 4)
    assert not fits(RowLimit(4), 5)
