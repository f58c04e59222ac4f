"""The engine: one thread owns the card and serves it to all runs, a step at a time.

Each turn it hears what came in, groups what the runs wait for by what may share a call, makes the calls, and sends the
answers back, which yields the next requests. A run therefore joins, leaves or is cancelled between two turns, whatever
the others do. Nothing slow happens on the engine's thread: that is what `Work` is for.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, Literal

import structlog
import torch

from shared.errors import Cancelled, RenderError
from worker.engine.answers.answer import answer
from worker.engine.answers.calls import Calls
from worker.engine.answers.denoising import subject
from worker.engine.cuda_errors import is_fatal
from worker.engine.devices import Device, enter
from worker.engine.loop.grouping import Call, plan
from worker.engine.loop.limits import call_seconds, host_seconds, work_seconds
from worker.engine.loop.runs import Ask, Run, Step, told
from worker.engine.loop.warmup import WarmUp, Within
from worker.engine.requests import Asks, Denoise, Embed, Read, Work
from worker.engine.transfers import TURNS_AHEAD, Pace, beside
from worker.engine.weights import Weights

log = structlog.get_logger(__name__)

Phase = Literal["embed", "steps", "decode", "warm-up", "work", "idle"]
Message = Callable[[], None]

HOST_THREADS: Final = 8  # for work on the host, and as many again for what reads the card, which mostly sleeps
CPU_HOST_THREADS: Final = 2  # of each, where they take their time from the renders
SWITCH_SECONDS: Final = 0.0005  # how soon a busy Python thread lets the engine's go on; Python's own 5 ms is a turn


class Engine:
    """Serves the steps of all runs on one card. `start` it, `render` from any thread, `stop` it."""

    def __init__(  # noqa: PLR0913 - what the world outside lets an engine know and do
        self,
        device: Device,
        *,
        row_budget: int | None = None,
        on_phase: Callable[[Phase, float], None] | None = None,
        halves: bool = True,
        on_full: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_phase` is called, on the engine's thread, before every call of a network and every wait: with the phase,
        and with the seconds within which it is called again unless the call hangs.

        A call for many rows that fails is made again in `halves`; without them all its pictures fail, so that nothing
        hides it from tests. `on_full` is asked before a picture fails for lack of memory: it is to drop from the card
        what nobody uses, at once, and to return whether there was any.

        `longest_hold_seconds` is the most of the thread's time that a run took between two of its requests, where
        it holds up all others: what is slow there belongs into `Work`.
        """
        self.device = device
        self._row_budget = row_budget or device.row_budget
        self._on_phase = on_phase or (lambda *_: None)
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._gate = Lock()
        self._is_open = False
        self._thread = Thread(target=self._serve, name=f"engine {device.name}", daemon=True)
        threads = HOST_THREADS if device.kind == "cuda" else CPU_HOST_THREADS
        self._host, self._readers = (
            ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=partial(enter, device))
            for name in ("engine work", "engine work reads")
        )
        self._runs: set[Run] = set()
        self._waiting: list[Ask] = []
        self._at_work = 0  # how many `Work`s are on the host's threads
        self._pace = Pace(device)
        self._calls = Calls(device.ladder, halves=halves, on_full=on_full, clock=clock)
        self._warm_up = WarmUp((count for count in device.ladder if count <= self._row_budget), self._calls)
        self._outstanding: deque[float] = deque(maxlen=TURNS_AHEAD + 1)  # seconds that each turn's calls may take
        self.longest_hold_seconds = 0.0

    # From any thread.

    def start(self) -> None:
        """Start serving."""
        sys.setswitchinterval(SWITCH_SECONDS)
        self._is_open = True
        self._thread.start()

    def stop(self) -> None:
        """Stop after this turn; runs that have not ended fail. Returns when the card is free."""
        self._post(self._shut)
        if self._thread.is_alive():
            self._thread.join()
        self._host.shutdown(cancel_futures=True)
        self._readers.shutdown(cancel_futures=True)

    def lose(self, error: Exception) -> None:
        """End as with a lost card, which another thread noticed by `error`. Returns at once; all runs fail."""
        with self._gate:
            self._inbox.put(partial(_raise, error))
            self._is_open = False

    @property
    def is_running(self) -> bool:
        """True while runs are served; False before the start, after the stop, and once the card is lost."""
        return self._is_open

    @property
    def broken_calls(self) -> Mapping[str, int]:
        """How many calls of networks failed since the start, by cause, also where a smaller one then succeeded."""
        return self._calls.broken

    def render(
        self,
        pipeline: Asks[Any],
        *,
        exact: bool = False,
        urgent: bool = False,
        on_step: Callable[[Step], None] | None = None,
        about: Mapping[str, object] | None = None,
    ) -> Run:
        """Return the run of `pipeline`, which begins at once.

        An exact run shares no call with others; an urgent one's rows go first. `on_step` is called on the engine's
        thread and must return at once. `about` is what logs say about it. Raises RenderError where the engine does not
        run.
        """
        run = Run(pipeline, is_exact=exact, is_urgent=urgent, on_step=on_step, on_cancel=self._cancel, about=about)
        self._runs.add(run)  # before it is posted: whatever ends the engine closes it
        if not self._post(partial(self._admit, run)):
            self._runs.discard(run)
            raise RenderError("the engine has stopped")
        return run

    def warm_up(self, weights: Weights, within: Within = nullcontext) -> None:
        """Have the card prepare its kernels for checkpoints such as `weights`, while nothing is rendered.

        Each call goes on in a block of `within`. A picture that comes meanwhile waits for one call at most. On a CPU
        there is nothing to prepare.
        """
        self._post(partial(self._warm_up.add, weights, within))

    def _cancel(self, run: Run) -> None:
        self._post(partial(self._close, run, Cancelled("the image was cancelled")))

    def _post(self, message: Message) -> bool:
        """Leave a message for the engine's thread; False where none will read it."""
        with self._gate:
            if self._is_open:
                self._inbox.put(message)
            return self._is_open

    # On the engine's thread.

    def _serve(self) -> None:
        reason = RenderError("the engine was stopped while the image was rendered")
        try:
            enter(self.device)
            while self._is_open or not self._inbox.empty():
                self._turn()
        except BaseException as error:
            log.critical("card lost", device=self.device.name, exc_info=error)
            reason = RenderError(f"the card was lost: {error}")
        finally:
            self._shut()
            for run in list(self._runs):
                self._close(run, reason)

    def _turn(self) -> None:
        self._hear()
        calls, self._waiting = plan(
            self._waiting, self._row_budget, ladder=self.device.ladder, most_rows=self._most_rows
        )
        asked = (ask.request for call in calls for ask in call)
        self._outstanding.append(work_seconds(asked, self.device.kind))
        for call in calls:
            self._make(call)
        self._pace.turn()

    def _most_rows(self, request: Denoise) -> int:
        return self._calls.most_rows(subject(request))

    def _hear(self) -> None:
        """Take in all messages; if nothing is to be done, warm up, or wait for one."""
        if not self._waiting and self._inbox.empty() and not self._warm():
            self._tell_wait()
            self._inbox.get()()
        while not self._inbox.empty():
            self._inbox.get()()

    def _tell_wait(self) -> None:
        """Say what is waited for: where host threads read what the card still computes, a hang shows only there."""
        if self._at_work:
            self._on_phase("work", host_seconds(sum(self._outstanding)))
        else:
            self._on_phase("idle", 0.0)

    def _warm(self) -> bool:
        """Make a call of the warm-up and wait for it, if no picture is in flight; return whether there was one."""
        due = None if self._runs else self._warm_up.next()
        if due is None:
            return False
        request, within = due
        self._on_phase("warm-up", call_seconds(work_seconds([request], self.device.kind)))
        with within():
            self._warm_up.make(request)
            self._pace.turn()
            self._pace.stop()
        return True

    def _make(self, call: Call) -> None:
        """Make one call of a network and send its answers back."""
        self._on_phase(_phase(call), call_seconds(sum(self._outstanding)))
        for ask, known in zip(call, self._answers(call), strict=True):
            self._send(ask, told(ask, known))

    def _answers(self, call: Call) -> Sequence[object]:
        try:
            return answer([ask.request for ask in call], is_exact=call[0].run.is_exact, calls=self._calls)
        except Exception as error:
            if is_fatal(error):
                raise
            return [error] * len(call)

    def _send(self, ask: Ask, known: object) -> None:
        self._take(ask.run, partial(ask.run.receive, ask.place, known))

    def _take(self, run: Run, move: Callable[[], Sequence[Ask]]) -> None:
        """Move a run on and queue what it asks next; forget it where it has ended."""
        started = time.thread_time()
        asks = move()
        self.longest_hold_seconds = max(self.longest_hold_seconds, time.thread_time() - started)
        if run.done:
            self._runs.discard(run)
        for ask in asks:
            if isinstance(ask.request, Work):
                self._at_work += 1
                self._submit(ask.request).add_done_callback(partial(self._worked, ask))
            else:
                self._waiting.append(ask)

    def _submit(self, request: Work) -> Future[Any]:
        """Have a host's thread do it; what reads the card waits there for no other work."""
        if isinstance(request, Read):
            return self._readers.submit(_work, beside(self.device, request.function))
        return self._host.submit(_work, request.function)

    def _worked(self, ask: Ask, outcome: Future[Any]) -> None:
        """On a host thread: bring what some work came to."""
        if not outcome.cancelled():
            self._post(partial(self._end_work, ask, outcome.exception() or outcome.result()))

    def _end_work(self, ask: Ask, known: object) -> None:
        self._at_work -= 1
        self._send(ask, known)

    def _admit(self, run: Run) -> None:
        self._take(run, run.begin)

    def _close(self, run: Run, reason: Exception) -> None:
        self._waiting = [ask for ask in self._waiting if ask.run is not run]
        self._runs.discard(run)
        run.close(reason)

    def _shut(self) -> None:
        with self._gate:
            self._is_open = False


def _raise(error: Exception) -> None:
    raise error


def _phase(call: Call) -> Phase:
    if isinstance(call[0].request, Embed):
        return "embed"
    return "steps" if isinstance(call[0].request, Denoise) else "decode"


@torch.inference_mode()
def _work(function: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the pipeline wanted
    return function()
