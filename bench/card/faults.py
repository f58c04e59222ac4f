"""Troubles to bring on a card, each in the process that does it and that says over a pipe what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Connection
from threading import Event
from typing import Any, Final

import torch
from structlog.testing import capture_logs
from torch import Tensor, nn

from bench.card import children, files, rendering
from bench.card.bench import Setting
from shared.errors import RenderError
from worker.engine import devices
from worker.engine.architectures.weights import Weights
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.periodic import Periodic
from worker.supervisor import child
from worker.supervisor.self_watchdog import SelfWatchdog
from worker.supervisor.status_pipe import StatusWriter
from worker.supervisor.watchdog import Watchdog

REFUSED: Final = 4  # pictures in flight when calls are refused
HANG_FACTOR: Final = 0.03  # of the limits in earnest: two seconds for a call
HANG_CYCLES: Final = 30 * 10**9  # fifteen seconds of a card
WATCH_SECONDS: Final = 0.2
ALLOCATOR, OUTSIDE = "full card", "full card, outside of the allocator"
FULL: Final = (ALLOCATOR, OUTSIDE)
_PIECES: Final = (2**30, 2**26, 2**22, 2**20)  # bytes, to fill a card with


def paint(setting: Setting, pipe: Connection) -> None:
    """Render one picture and say so."""
    with _loaded(setting) as (engine, weights):
        pipe.send(_picture(setting, engine, weights))


def go_on(setting: Setting, pipe: Connection) -> None:
    """Render until someone ends it; say when the first step is made."""
    with _loaded(setting) as (engine, weights):
        is_sent = Event()

        def send(_: object) -> None:
            if not is_sent.is_set():
                is_sent.set()
                pipe.send("in a step")

        while True:
            rendering.begin(engine, weights, _wanted(setting, 0), on_step=send).result(rendering.SECONDS)


def hang(setting: Setting, pipe: Connection) -> None:
    """Have the card stand still for longer than a call may take; the watch is to end this process, which says after how
    many seconds.
    """
    watchdog = Watchdog(factor=HANG_FACTOR)

    def on_phase(phase: str, limit_seconds: float) -> None:
        watchdog.idle("engine") if phase == "idle" else watchdog.busy("engine", phase, limit_seconds)

    with _loaded(setting, on_phase) as (engine, weights):
        _picture(setting, engine, weights)  # kernels are loaded before limits count
        begun = [time.monotonic()]

        def stand_still(_: object) -> None:
            begun[0] = time.monotonic()
            torch.cuda._sleep(HANG_CYCLES)  # noqa: SLF001 - nothing public stands still

        def end(*_: object) -> None:
            pipe.send(time.monotonic() - begun[0])
            os._exit(child.HUNG)

        Periodic("watch", WATCH_SECONDS, SelfWatchdog(watchdog, StatusWriter(), end).run_once).start()
        rendering.begin(engine, weights, _wanted(setting, 1), on_step=stand_still).result(rendering.SECONDS)


def lose(setting: Setting, pipe: Connection) -> None:
    """Lose the card in a step; report the error that the picture got, and end as a worker would."""
    with _loaded(setting) as (engine, weights):
        run = rendering.begin(engine, weights, _wanted(setting, 0), on_step=lambda _: _break(setting))
        error = ""
        try:
            run.result(rendering.SECONDS)
        except RenderError as failure:
            error = str(failure)
        pipe.send({"error": error, "is_running": engine.is_running})
        os._exit(child.CLEAN if engine.is_running else child.LOST)


def refuse(setting: Setting, pipe: Connection) -> None:
    """Let the U-Net refuse calls for more than one row; send how many pictures came out and what was logged."""
    with _loaded(setting) as (engine, weights), capture_logs() as logs:
        weights.unet.register_forward_pre_hook(_refusal)
        wanted = [_wanted(setting, seed) for seed in range(REFUSED)]
        pictures = rendering.pictures(engine, weights, wanted, REFUSED)
        counted = sum(engine.broken_calls.values())
    logged = [entry for entry in logs if entry["log_level"] in {"warning", "error"}]
    pipe.send({"pictures": len(pictures), "counted": counted, "logged": len(logged)})


def fill(setting: Setting, pipe: Connection) -> None:
    """Leave a card no memory for a picture, in the allocator and then outside of it; send the outcome of both."""
    said: dict[str, dict[str, Any]] = {}
    with _loaded(setting) as (engine, weights):
        for where, full in ((ALLOCATOR, _filled), (OUTSIDE, _full_outside)):
            error = ""
            with full(setting):
                try:
                    _picture(setting, engine, weights)
                except RenderError as failure:
                    error = type(failure).__name__
            said[where] = {"error": error, "is_running": engine.is_running}
            said[where]["picture"] = _picture(setting, engine, weights)
    pipe.send(said)


@contextmanager
def _loaded(setting: Setting, on_phase: Any = None) -> Iterator[tuple[Engine, Weights]]:  # noqa: ANN401 - an engine's
    """This process has the card, an engine, and the demo checkpoint."""
    children.enter(setting)
    card = devices.device(setting.card)
    weights = load.load(files.demonstration(setting), card, torch.float16)
    with rendering.serving(card, on_phase) as engine:
        yield engine, weights


def _wanted(setting: Setting, seed: int) -> rendering.RenderParams:
    return rendering.params(setting.scale.demo_side, max(3, setting.scale.steps), seed)


def _picture(setting: Setting, engine: Engine, weights: Weights) -> str:
    (pixels,) = rendering.pictures(engine, weights, [_wanted(setting, 0)], 1)
    return f"a picture of {pixels.shape[1]} x {pixels.shape[0]}"


def _refusal(_: nn.Module, given: Sequence[Any]) -> None:
    if len(given[0]) > 1:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED (planted)")


def _break(setting: Setting) -> None:
    """Read out of bounds on the card: from then on it answers nothing to this process."""
    if setting.pretends:
        _on_every_kernel("CUDA error: device-side assert triggered", 710)
    else:
        torch.zeros(4, device=setting.card)[torch.tensor([9]).to(setting.card, non_blocking=True)]


@contextmanager
def _filled(setting: Setting) -> Iterator[None]:
    """The card has next to no memory left."""
    held: list[Tensor] = []
    for size in _PIECES:
        try:
            while True:
                held.append(torch.empty(size, dtype=torch.uint8, device=setting.card))
        except torch.OutOfMemoryError:
            devices.release_memory()
    try:
        yield
    finally:
        held.clear()
        devices.release_memory()


@contextmanager
def _full_outside(setting: Setting) -> Iterator[None]:
    """Memory outside the caching allocator is missing: on a pretended card for kernels, on a card for all that its
    libraries need beside tensors.
    """
    if not setting.pretends:
        with _filled(setting):
            yield
        return
    ledger = _on_every_kernel("CUDA error: out of memory", 2)
    try:
        yield
    finally:
        ledger.on_kernel = None


def _on_every_kernel(words: str, code: int) -> Any:  # noqa: ANN401 - the pretended card's ledger, of a checkout alone
    """Have every kernel of the pretended card fail with a CUDA error; return its ledger."""
    ledger = import_module("tests.support.pretended_card").LEDGER

    def fail(*_: object) -> None:
        error = torch.AcceleratorError(f"{words} (planted)")
        error.error_code = code  # type: ignore[attr-defined]
        raise error

    ledger.on_kernel = fail
    return ledger
