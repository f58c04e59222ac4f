"""After a failure nothing of a picture stays in memory: without Python's collector, which may be minutes off."""

from __future__ import annotations

import gc
import io
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import structlog
import torch

from shared.errors import Cancelled, ModelFileError, NotUnderstood, OutOfMemory, RenderError, RenderFailed, StorageAway
from tests.support.conditioned import term
from worker.engine.answers import denoising
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.failures import duplicate, without_tracebacks
from worker.engine.loading import load as checkpoints
from worker.engine.loading.loader import Loader
from worker.engine.loop.engine import Engine
from worker.engine.loop.runs import Run
from worker.engine.requests import Denoise, Work

SECONDS = 60


class Large:
    """What a render holds: as long as it is alive, so would be a checkpoint."""

    def fail(self) -> None:
        raise LookupError("its own trouble")


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def raising(error: BaseException) -> BaseException:
    """`error` as it is where it is caught."""
    try:
        raise error  # noqa: TRY301 - only so it gets a traceback
    except BaseException as caught:  # noqa: BLE001 - whatever was asked for
        return caught


def test_an_error_is_bared_of_all_tracebacks_behind_it() -> None:
    first, second = raising(KeyError("first")), raising(ValueError("second"))
    error = raising(RuntimeError("third"))
    error.__cause__, second.__context__ = second, first
    group = raising(ExceptionGroup("several", [error, raising(OSError("fourth"))]))  # type: ignore[type-var]
    first.__context__ = group  # round in a circle
    assert without_tracebacks(group) is group
    everything = [first, second, error, group, *group.exceptions]  # type: ignore[attr-defined]
    assert [one.__traceback__ for one in everything] == [None] * 6


@pytest.mark.parametrize(
    "error",
    [
        RenderError("plain"),
        OutOfMemory("no room"),
        NotUnderstood("of a younger version", what="mood"),
        StorageAway("storing", "it is full", detail="/srv", advice="make room", is_certain=True),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_raised_again_as_another_one_that_says_the_same(error: Exception) -> None:
    error.__cause__ = KeyError("cause")
    other = duplicate(error)
    assert other is not error
    assert type(other) is type(error)
    assert (str(other), vars(other), other.__cause__) == (str(error), vars(error), error.__cause__)


# Runs.


def in_the_pipeline(large: Large, _: Weights) -> Iterator[Any]:
    yield Work(int)
    large.fail()


def in_work(large: Large, _: Weights) -> Iterator[Any]:
    yield Work(large.fail)


def on_purpose(large: Large, _: Weights) -> Iterator[Any]:
    yield Work(int)
    try:
        large.fail()
    except LookupError as error:
        raise ModelFileError("cannot be read") from error


def in_a_call(large: Large, weights: Weights) -> Iterator[Any]:
    yield (Work(lambda: large), Denoise(weights, torch.zeros(4, 8, 8), 1.0, (term(1.0, torch.zeros(77, 1)),), 1, 1))


def out_of_memory(large: Large, _: Weights) -> Iterator[Any]:
    yield Work(lambda: large)
    raise torch.OutOfMemoryError("CUDA out of memory")


def in_what_follows_a_failure(large: Large, _: Weights) -> Iterator[Any]:
    try:
        yield Work(large.fail)
    finally:
        large.fail()


WAYS = [in_the_pipeline, in_work, on_purpose, in_a_call, out_of_memory, in_what_follows_a_failure]


def waited_for(engine: Engine, make: Callable[[Large, Weights], Iterator[Any]], weights: Weights) -> weakref.ref[Large]:
    """Render as a slot does, in a frame that holds the run and what it renders with; return what is left."""
    large = Large()
    run = engine.render(make(large, weights), on_step=lambda _: large.fail())
    with pytest.raises(RenderError):
        run.result(SECONDS)
    return weakref.ref(large)


def settled(engine: Engine) -> None:
    """Return when the engine's turn has ended, whose frames hold what it answered."""

    def pipeline() -> Iterator[Any]:
        yield Work(int)

    engine.render(pipeline()).result(SECONDS)
    engine.render(pipeline()).result(SECONDS)


@pytest.mark.parametrize("make", WAYS, ids=lambda make: make.__name__)
@pytest.mark.usefixtures("no_collector")
def test_nothing_of_a_run_that_failed_stays_in_memory(engine: Engine, tiny: Weights, make: Any) -> None:
    large = waited_for(engine, make, tiny)
    settled(engine)
    assert large() is None


@pytest.mark.usefixtures("no_collector")
def test_nothing_of_a_run_that_was_cancelled_stays_in_memory(engine: Engine) -> None:
    begun, go_on = Event(), Event()

    def pipeline(large: Large) -> Iterator[Any]:
        yield Work(begun.set)
        yield Work(lambda: large), Work(lambda: go_on.wait(SECONDS))

    def cancelled() -> weakref.ref[Large]:
        large = Large()
        run = engine.render(pipeline(large))
        assert begun.wait(SECONDS)
        run.cancel()
        with pytest.raises(Cancelled):
            run.result(SECONDS)
        go_on.set()
        return weakref.ref(large)

    large = cancelled()
    engine.stop()
    assert large() is None


@pytest.mark.usefixtures("no_collector")
def test_a_run_that_has_ended_holds_nothing_while_its_waiter_still_does_something(engine: Engine) -> None:
    def pipeline(large: Large) -> Iterator[Any]:
        yield Work(int)
        large.fail()

    large = Large()
    run, left = engine.render(pipeline(large), on_step=partial(print, large)), weakref.ref(large)
    del large
    with pytest.raises(RenderFailed):
        run.result(SECONDS)
    settled(engine)
    assert left() is None
    assert run.done


@pytest.mark.usefixtures("no_collector")
def test_nothing_that_a_lost_card_took_along_stays_in_memory(
    cpu: Device, tiny: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> Any:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(denoising, "_denoise_rows", lost)
    engine = Engine(cpu)
    engine.start()
    large = waited_for(engine, in_a_call, tiny)
    engine.stop()
    assert large() is None


def test_waiters_of_one_run_are_told_the_same_and_hold_nothing_of_each_other(engine: Engine) -> None:
    run = engine.render(in_the_pipeline(Large(), None))  # type: ignore[arg-type]
    errors = []
    for _ in range(2):
        with pytest.raises(RenderFailed, match="its own trouble") as raised:
            run.result(SECONDS)
        errors.append(raised.value)
    assert errors[0] is not errors[1]


# Loads.


@pytest.mark.parametrize("is_of_people", [True, False])
@pytest.mark.usefixtures("no_collector")
def test_a_load_that_failed_keeps_nothing_of_who_wanted_it(cpu: Device, is_of_people: bool) -> None:  # noqa: FBT001
    def load() -> None:
        if is_of_people:
            raise ModelFileError("no weights")
        raise LookupError("its own trouble")

    def wanted() -> weakref.ref[Large]:
        large = Large()
        with pytest.raises((ModelFileError, LookupError)):
            loader.run(load)
        return weakref.ref(large)

    loader = Loader(cpu)
    loader.start()
    large = wanted()
    loader.stop()
    assert large() is None


@pytest.mark.usefixtures("no_collector")
def test_a_file_that_cannot_be_read_keeps_nothing_of_who_wanted_it(cpu: Device, tmp_path: Path) -> None:
    def wanted(read: Callable[..., Any], file: Path) -> weakref.ref[Large]:
        large = Large()
        with pytest.raises(ModelFileError):
            read(file, cpu, torch.float32)
        return weakref.ref(large)

    broken, missing = tmp_path / "broken.safetensors", tmp_path / "missing.safetensors"
    broken.write_bytes(b"no weights")
    for read in (checkpoints.load, checkpoints.load_vae, checkpoints.load_decoder):
        for file in (broken, missing):
            assert wanted(read, file)() is None, (read, file)


# What the log holds of it.


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """The log as text."""
    before = structlog.get_config()
    text = io.StringIO()
    render = [structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    structlog.configure(processors=render, logger_factory=structlog.PrintLoggerFactory(text))
    yield text
    structlog.configure(**before)


def test_the_log_holds_the_traceback_and_whose_run_it_was(engine: Engine, written: io.StringIO) -> None:
    run = engine.render(in_the_pipeline(Large(), None), about={"job": 7, "image": 11})  # type: ignore[arg-type]
    with pytest.raises(RenderFailed):
        run.result(SECONDS)
    text = written.getvalue()
    for part in ("render failed", "job=7", "image=11", "Traceback", "in fail", "LookupError: its own trouble"):
        assert part in text


def test_the_log_holds_the_line_of_work_that_failed(engine: Engine, written: io.StringIO) -> None:
    with pytest.raises(RenderFailed):
        engine.render(in_work(Large(), None)).result(SECONDS)  # type: ignore[arg-type]
    assert "in fail" in written.getvalue()


@pytest.mark.parametrize("make", [on_purpose, out_of_memory])
def test_what_is_told_to_people_needs_no_traceback(engine: Engine, written: io.StringIO, make: Any) -> None:
    with pytest.raises(RenderError):
        engine.render(make(Large(), None)).result(SECONDS)
    assert written.getvalue() == ""


def test_the_log_says_why_a_card_was_lost(
    cpu: Device, tiny: Weights, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> Any:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(denoising, "_denoise_rows", lost)
    engine = Engine(cpu)
    engine.start()
    waited_for(engine, in_a_call, tiny)
    engine.stop()
    for part in ("card lost", "Traceback", "in lost", "device-side assert triggered"):
        assert part in written.getvalue()


# Where a lost card is noticed.


def fatal() -> torch.AcceleratorError:
    return torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def in_a_sampler() -> Iterator[Any]:
    yield Work(int)
    raise fatal()


def in_a_read() -> Iterator[Any]:
    def read() -> None:
        raise fatal()

    yield Work(read)


def test_a_card_that_another_thread_found_lost_ends_the_engine_and_all_runs(cpu: Device, written: io.StringIO) -> None:
    engine = Engine(cpu)
    engine.start()
    begun, go_on = Event(), Event()

    def pipeline() -> Iterator[Any]:
        yield Work(begun.set)
        yield Work(lambda: go_on.wait(SECONDS))

    run = engine.render(pipeline())
    assert begun.wait(SECONDS)
    engine.lose(fatal())
    assert not engine.is_running
    with pytest.raises(RenderError, match="the card was lost: CUDA error: an illegal memory access"):
        run.result(SECONDS)
    with pytest.raises(RenderError, match="the engine has stopped"):
        engine.render(pipeline())
    go_on.set()
    engine.stop()
    assert written.getvalue().count("card lost") == 1


@pytest.mark.parametrize("make", [in_a_sampler, in_a_read], ids=lambda make: make.__name__)
def test_a_card_is_lost_wherever_that_shows(cpu: Device, make: Callable[[], Iterator[Any]]) -> None:
    engine = Engine(cpu)
    engine.start()
    waits = Event()

    def other() -> Iterator[Any]:
        yield Work(lambda: waits.wait(SECONDS))

    neighbour: Run = engine.render(other())
    with pytest.raises(RenderError, match="the card was lost: CUDA error: an illegal memory access"):
        engine.render(make()).result(SECONDS)
    with pytest.raises(RenderError, match="the card was lost"):
        neighbour.result(SECONDS)
    waits.set()
    assert not engine.is_running
    engine.stop()
