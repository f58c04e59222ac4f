"""The engine as its callers see it: runs join, leave and fail without their neighbours noticing."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from threading import Event, current_thread
from typing import Any

import numpy as np
import pytest
import torch

from shared.errors import Cancelled, OutOfMemory, RenderError
from shared.params.render import RenderParams
from worker.engine.answers import denoising
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.loop.runs import Run, Step
from worker.engine.pipelines import denoise_pass
from worker.engine.pipelines.render import Kit, Picture, text_to_image
from worker.engine.requests import Work

SECONDS = 60
Rows = Callable[[Weights, Any], Any]


@pytest.fixture
def start(engine: Engine, tiny: Weights, params: RenderParams) -> Callable[..., Run]:
    """Start a picture that differs from `params` as said."""
    return partial(started, engine, tiny, params)


@pytest.fixture
def halving(cpu: Device, tiny: Weights, params: RenderParams) -> Iterator[Callable[..., Run]]:
    """Start a picture as `start` does, on an engine that makes calls that fail again in halves, as those of workers."""
    engine = Engine(cpu, halves=True)
    engine.start()
    yield partial(started, engine, tiny, params)
    engine.stop()


def started(
    engine: Engine,
    weights: Weights,
    params: RenderParams,
    *,
    exact: bool = False,
    urgent: bool = False,
    on_step: Any = None,
    **changes: Any,
) -> Run:
    pipeline = text_to_image(params.model_copy(update=changes), Kit(weights))
    return engine.render(pipeline, exact=exact, urgent=urgent, on_step=on_step)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of the U-Net has had, as they come."""
    made: list[int] = []
    original = denoising._denoise_rows

    def counted(weights: Weights, rows: Any) -> Any:
        made.append(len(rows))
        return original(weights, rows)

    monkeypatch.setattr(denoising, "_denoise_rows", counted)
    return made


def differing(one: Picture, other: Picture) -> tuple[float, int]:
    """The share of values that are more than 1/255 apart, and the largest distance."""
    distance = np.abs(one.astype(int) - other.astype(int))
    return float((distance > 1).mean()), int(distance.max())


def assert_same_picture(one: Picture, other: Picture) -> None:
    share, largest = differing(one, other)
    assert share <= 0.001
    assert largest <= 8


# Same parameters, same picture.


def test_a_picture_has_the_size_asked_for(start: Callable[..., Run]) -> None:
    picture = start(width=72, height=64).result(SECONDS)
    assert picture.shape == (64, 72, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10


def test_a_picture_comes_again_from_the_same_parameters(start: Callable[..., Run]) -> None:
    assert np.array_equal(start().result(SECONDS), start().result(SECONDS))


@pytest.mark.parametrize("change", [{"seed": 8}, {"prompt": "desert"}, {"negative_prompt": "moon"}, {"cfg_scale": 4.0}])
def test_a_picture_changes_with_its_parameters(start: Callable[..., Run], change: dict) -> None:
    share, _ = differing(start().result(SECONDS), start(**change).result(SECONDS))
    assert share > 0.05


def test_at_scale_one_the_negative_prompt_takes_no_row_and_changes_nothing(
    start: Callable[..., Run], calls: list[int]
) -> None:
    plain = start(cfg_scale=1.0).result(SECONDS)
    assert np.array_equal(plain, start(cfg_scale=1.0, negative_prompt="moon").result(SECONDS))
    assert set(calls) == {1}


MIXED = [
    {
        "sampler": sampler,
        "steps": steps,
        "cfg_scale": scale,
        "seed": seed,
        "prompt": prompt,
        "negative_prompt": negative,
    }
    for seed, (sampler, steps, scale, prompt, negative) in enumerate(
        zip(
            itertools.cycle(["Euler a", "Euler", "DDIM", "DPM++ 2M"]),
            itertools.cycle([5, 20, 7, 11, 13]),
            itertools.cycle([1.0, 3.0, 7.0, 12.0, 1.5]),
            itertools.cycle(["sea at night", "red sailboat, " * 30, "moon, " * 90]),
            ["", "desert", "", "", "cat, " * 50, "blurry"] * 4,
            strict=False,
        )
    )
]


@pytest.mark.parametrize("count", [5, pytest.param(24, marks=pytest.mark.nightly)])
def test_pictures_are_in_company_what_they_are_alone(start: Callable[..., Run], calls: list[int], count: int) -> None:
    alone = [start(**mixed).result(SECONDS) for mixed in MIXED[:count]]
    calls_alone = len(calls)
    with ThreadPoolExecutor(8) as slots:
        together = list(slots.map(lambda mixed: start(**mixed).result(SECONDS), MIXED[:count]))
    for one, other in zip(alone, together, strict=True):
        assert_same_picture(one, other)
    assert len(calls) - calls_alone < calls_alone  # they did share calls


def test_the_order_of_arrival_changes_no_picture(start: Callable[..., Run]) -> None:
    forwards = [start(seed=seed) for seed in range(3)]
    backwards = [start(seed=seed) for seed in reversed(range(3))]
    for one, other in zip(forwards, reversed(backwards), strict=True):
        assert_same_picture(one.result(SECONDS), other.result(SECONDS))


def test_several_checkpoints_are_served_at_once(
    engine: Engine, tiny: Weights, tiny_path: Any, cpu: Device, params: RenderParams
) -> None:
    other = load.load(tiny_path, cpu, torch.float32)
    runs = [engine.render(text_to_image(params, Kit(weights))) for weights in (tiny, other, tiny, other)]
    pictures = [run.result(SECONDS) for run in runs]
    for picture in pictures[1:]:
        assert_same_picture(pictures[0], picture)


# Exact pictures.


def test_an_exact_picture_is_the_same_to_the_bit_in_any_company(start: Callable[..., Run], calls: list[int]) -> None:
    alone = start(exact=True, prompt="moon, " * 40).result(SECONDS)
    company = [start(seed=seed, steps=6) for seed in range(3)]
    among = start(exact=True, prompt="moon, " * 40).result(SECONDS)
    assert np.array_equal(alone, among)
    for run in company:
        run.result(SECONDS)


def test_the_rows_of_exact_pictures_share_no_call(start: Callable[..., Run], calls: list[int]) -> None:
    runs = [start(exact=True, seed=seed) for seed in range(2)]
    for run in runs:
        run.result(SECONDS)
    assert calls == [1] * 16


# Progress.


def test_each_step_is_told_with_what_went_in_and_came_out(start: Callable[..., Run], params: RenderParams) -> None:
    steps: list[Step] = []
    start(on_step=steps.append).result(SECONDS)
    assert [(step.index, step.steps) for step in steps] == [(index, params.steps) for index in range(1, 5)]
    assert all(step.x.shape == step.denoised.shape == (4, 8, 8) for step in steps)


@pytest.mark.parametrize(("sampler", "steps", "told"), [("DDIM", 20, 19), ("Euler", 3, 3), ("DPM++ 2M", 3, 3)])
def test_progress_counts_the_calls_that_a_sampler_makes(
    start: Callable[..., Run], sampler: str, steps: int, told: int
) -> None:
    seen: list[Step] = []
    start(sampler=sampler, steps=steps, on_step=seen.append).result(SECONDS)
    assert [step.index for step in seen] == list(range(1, told + 1))
    assert {step.steps for step in seen} == {told}


def test_a_watcher_that_fails_fails_its_own_run_alone(start: Callable[..., Run]) -> None:
    def broken(_: Step) -> None:
        raise ValueError("a watcher's own trouble")

    good, bad = start(seed=1), start(seed=2, on_step=broken)
    with pytest.raises(RenderError, match="a watcher's own trouble"):
        bad.result(SECONDS)
    assert good.result(SECONDS).size


# Leaving.


def test_cancel_closes_a_run_within_two_turns_and_leaves_the_others_and_the_weights(
    start: Callable[..., Run], calls: list[int]
) -> None:
    seen: list[Step] = []
    runs: list[Run] = []

    def cancel_at_three(step: Step) -> None:
        seen.append(step)
        if step.index == 3:
            runs[0].cancel()

    neighbour = start(seed=1, steps=8)
    runs.append(start(seed=2, steps=150, on_step=cancel_at_three))
    with pytest.raises(Cancelled):
        runs[0].result(SECONDS)
    assert runs[0].done
    assert len(seen) <= 5
    assert_same_picture(neighbour.result(SECONDS), start(seed=1, steps=8).result(SECONDS))


def test_cancel_of_a_run_that_has_ended_changes_nothing(start: Callable[..., Run]) -> None:
    run = start()
    picture = run.result(SECONDS)
    run.cancel()
    start(seed=1).result(SECONDS)
    assert run.result() is picture


def test_a_pipeline_is_closed_on_the_engines_thread(engine: Engine) -> None:
    closed: list[str] = []
    begun = Event()

    def pipeline() -> Iterator[Any]:
        try:
            yield Work(begun.wait)
        finally:
            closed.append(current_thread().name)

    run = engine.render(pipeline())
    run.cancel()
    with pytest.raises(Cancelled):
        run.result(SECONDS)
    begun.set()
    assert closed == [f"engine {engine.device.name}"]


def test_stop_ends_what_runs_with_a_reason(cpu: Device, tiny: Weights, params: RenderParams) -> None:
    engine = Engine(cpu)
    engine.start()
    stepped = Event()
    long = params.model_copy(update={"steps": 150})
    run = engine.render(text_to_image(long, Kit(tiny)), on_step=lambda _: stepped.set())
    assert stepped.wait(SECONDS)
    engine.stop()
    with pytest.raises(RenderError, match="stopped"):
        run.result(SECONDS)
    assert not engine.is_running
    with pytest.raises(RenderError, match="stopped"):
        engine.render(text_to_image(params, Kit(tiny)))


# Failing.


def only_up_to(rows: int, original: Rows) -> Rows:
    """A card that holds so many rows."""

    def answer(weights: Weights, asked: Any) -> Any:
        if len(asked) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(weights, asked)

    return answer


@pytest.mark.parametrize("rows", [pytest.param(1, marks=pytest.mark.nightly), 3])
def test_what_does_not_fit_is_asked_again_in_halves(
    halving: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    expected = [halving(seed=seed).result(SECONDS) for seed in range(4)]
    monkeypatch.setattr(denoising, "_denoise_rows", only_up_to(rows, denoising._denoise_rows))
    runs = [halving(seed=seed) for seed in range(4)]
    for run, picture in zip(runs, expected, strict=True):
        assert_same_picture(run.result(SECONDS), picture)


def test_a_row_that_fits_nowhere_fails_its_own_run_alone(
    halving: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = denoising._denoise_rows

    def no_large_ones(weights: Weights, rows: Any) -> Any:
        if rows[0].x.shape[-1] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(weights, rows)

    monkeypatch.setattr(denoising, "_denoise_rows", no_large_ones)
    small, large = halving(seed=1), halving(seed=2, width=128)
    with pytest.raises(OutOfMemory, match="not enough memory"):
        large.result(SECONDS)
    assert small.result(SECONDS).size


def test_a_row_that_breaks_a_call_fails_its_own_run_alone(
    halving: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = denoising._denoise_rows

    def no_long_contexts(weights: Weights, rows: Any) -> Any:
        if any(row.sigma > 14 and row.x.mean() == marked for row in rows):
            raise RuntimeError("a kernel's trouble")
        return original(weights, rows)

    marked: Any = None
    monkeypatch.setattr(denoising, "_denoise_rows", no_long_contexts)
    first: list[Step] = []
    halving(seed=3, on_step=first.append).result(SECONDS)
    marked = first[0].x.mean()
    runs = {seed: halving(seed=seed) for seed in range(6)}
    with pytest.raises(RenderError, match="a kernel's trouble"):
        runs.pop(3).result(SECONDS)
    for run in runs.values():
        assert run.result(SECONDS).size


def test_a_lost_card_ends_all_runs_and_the_engine(
    engine: Engine, start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> Any:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(denoising, "_denoise_rows", lost)
    with pytest.raises(RenderError, match="the card was lost"):
        start().result(SECONDS)
    engine._thread.join(SECONDS)
    assert not engine.is_running


def test_whatever_ends_the_engine_nobody_waits_for_ever(cpu: Device, tiny: Weights, params: RenderParams) -> None:
    def leave(phase: str, _: float) -> None:
        if phase == "steps":
            raise SystemExit("told to go")

    def holds_on() -> Iterator[Any]:
        try:
            yield Work(lost.wait)
        finally:
            raise KeyboardInterrupt

    lost = Event()
    engine = Engine(cpu, on_phase=leave)
    engine.start()
    runs = [engine.render(holds_on()), engine.render(text_to_image(params, Kit(tiny)))]
    for run in runs:
        with pytest.raises(RenderError, match="the card was lost: told to go"):
            run.result(SECONDS)
    lost.set()
    assert not engine.is_running


def test_numbers_that_are_not_finite_are_no_picture(start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    original = denoising._denoise_rows

    def overflowing(weights: Weights, rows: Any) -> Any:
        return [denoised * torch.inf for denoised in original(weights, rows)]

    monkeypatch.setattr(denoising, "_denoise_rows", overflowing)
    with pytest.raises(RenderError, match="not finite"):
        start().result(SECONDS)


@pytest.mark.parametrize("pipeline", ["raises", "exits", "asks nonsense", "breaks in work", "exits in work"])
def test_a_pipeline_that_fails_fails_alone(engine: Engine, start: Callable[..., Run], pipeline: str) -> None:
    def raises() -> Iterator[Any]:
        yield Work(int)
        raise LookupError("its own trouble")

    def exits() -> Iterator[Any]:
        yield Work(int)
        raise SystemExit("its own trouble")

    def exits_in_work() -> Iterator[Any]:
        yield Work(partial(sys.exit, "its own trouble"))

    def asks_nonsense() -> Iterator[Any]:
        yield "its own trouble"

    def breaks_in_work() -> Iterator[Any]:
        yield Work(lambda: {}["its own trouble"])

    good = start()
    pipelines = [raises, exits, asks_nonsense, breaks_in_work, exits_in_work]
    bad = engine.render(next(each for each in pipelines if each.__name__ == pipeline.replace(" ", "_"))())
    with pytest.raises(RenderError, match="its own trouble"):
        bad.result(SECONDS)
    assert good.result(SECONDS).size


# The loop.


def test_requests_asked_together_are_answered_together(engine: Engine) -> None:
    def pipeline() -> Iterator[Any]:
        return (yield Work(lambda: 1), Work(lambda: 2)), (yield (Work(lambda: 3),)), (yield Work(lambda: 4))

    assert engine.render(pipeline()).result(SECONDS) == ((1, 2), (3,), 4)


def test_work_is_done_off_the_engines_thread(engine: Engine) -> None:
    def pipeline() -> Iterator[Any]:
        return current_thread().name, (yield Work(lambda: current_thread().name))

    own, works = engine.render(pipeline()).result(SECONDS)
    assert own == f"engine {engine.device.name}"
    assert works != own


def test_phases_are_told_as_they_come(cpu: Device, tiny: Weights, params: RenderParams) -> None:
    phases: list[str] = []
    engine = Engine(cpu, on_phase=lambda phase, _: phases.append(phase))
    engine.start()
    engine.render(text_to_image(params, Kit(tiny))).result(SECONDS)
    engine.stop()
    assert [phase for phase, _ in itertools.groupby(phase for phase in phases if phase not in {"idle", "work"})] == [
        "embed", "steps", "decode",
    ]  # fmt: skip
    assert phases.count("steps") == params.steps


def test_work_that_is_waited_for_is_not_told_as_idle(cpu: Device) -> None:
    told: SimpleQueue[tuple[str, float]] = SimpleQueue()

    def pipeline() -> Iterator[Any]:
        return (yield Work(lambda: done.wait(SECONDS)))

    done = Event()
    engine = Engine(cpu, on_phase=lambda *phase: told.put(phase))
    engine.start()
    assert told.get(timeout=SECONDS)[0] == "idle"
    run = engine.render(pipeline())
    phase, limit_seconds = told.get(timeout=SECONDS)  # a card that hangs under the last call hangs here
    done.set()
    run.result(SECONDS)
    assert (phase, told.get(timeout=SECONDS)[0]) == ("work", "idle")
    assert limit_seconds > SECONDS
    engine.stop()


def test_an_urgent_run_passes_those_that_fill_the_budget(cpu: Device, tiny: Weights, params: RenderParams) -> None:
    engine = Engine(cpu, row_budget=2)
    engine.start()
    ended: list[str] = []
    begun = Event()

    def render(name: str, steps: int, *, urgent: bool) -> Run:
        def pipeline() -> Iterator[Any]:
            yield Work(begun.wait)
            picture = yield from text_to_image(params.model_copy(update={"steps": steps}), Kit(tiny))
            ended.append(name)
            return picture

        return engine.render(pipeline(), urgent=urgent)

    runs = [render("patient", 6, urgent=False), render("urgent", 6, urgent=True)]
    begun.set()
    for run in runs:
        run.result(SECONDS)
    engine.stop()
    assert ended == ["urgent", "patient"]


def test_noise_goes_to_the_card_a_step_at_a_time(
    start: Callable[..., Run], calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, torch.Size]] = []
    original = denoise_pass.to_device

    def noted(noise: torch.Tensor, to: Device) -> torch.Tensor:
        sent.append((len(calls), noise.shape))
        return original(noise, to)

    monkeypatch.setattr(denoise_pass, "to_device", noted)
    start(steps=4).result(SECONDS)
    assert sent == [(made, (4, 8, 8)) for made in range(4)]


def test_nothing_is_drawn_or_looked_at_on_the_engines_thread(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing: list[str] = []
    original = torch.randn

    def randn(*arguments: Any, **named: Any) -> torch.Tensor:
        drawing.append(current_thread().name)
        return original(*arguments, **named)

    monkeypatch.setattr(torch, "randn", randn)
    start().result(SECONDS)
    assert drawing
    assert not any(name.startswith("engine cpu") for name in drawing)


def test_how_long_a_run_held_the_engines_thread_is_known(engine: Engine) -> None:
    def pipeline(request: Work, seconds: float) -> Any:
        yield request
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    engine.render(pipeline(Work(lambda: time.sleep(0.2)), 0.0)).result(SECONDS)
    assert engine.longest_hold_seconds < 0.1
    engine.render(pipeline(Work(lambda: None), 0.15)).result(SECONDS)
    assert 0.15 <= engine.longest_hold_seconds < 0.3
