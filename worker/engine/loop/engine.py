"""The engine: one thread owns the card and serves it to all runs, a step at a time.

Each turn it reads its messages, groups the requests that may share a call, makes the calls, and sends the answers back,
to which the runs reply with their next requests. So a run joins, leaves or is cancelled between two turns, independent
of the others. Slow work on the host is a `Work` request, so that the engine's thread never does it.
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
from worker.engine.architectures.weights import Weights
from worker.engine.cuda_errors import is_fatal
from worker.engine.devices import Device, enter
from worker.engine.loop.grouping import Call, plan
from worker.engine.loop.limits import call_seconds, host_seconds, work_seconds
from worker.engine.loop.runs import Ask, Run, Step, reported
from worker.engine.loop.warmup import WarmUp, Within
from worker.engine.requests import Asks, Denoise, Embed, Read, Work
from worker.engine.transfers import TURNS_AHEAD, Pace, beside

log = structlog.get_logger(__name__)

Phase = Literal["embed", "steps", "decode", "warm-up", "work", "idle"]
Message = Callable[[], None]

HOST_THREADS: Final = 8  # for work on the host, and as many again for reads of the card, which mostly sleep
CPU_HOST_THREADS: Final = 2  # of each: they share the processor with the renders
SWITCH_SECONDS: Final = 0.0005  # a busy thread then yields to the engine's; Python's 5 ms are as long as a turn


class Engine:
    """Serves the steps of all runs on one card. `start` it, `render` from any thread, `stop` it."""

    def __init__(  # noqa: PLR0913 - all that an engine depends on
        self,
        device: Device,
        *,
        row_budget: int | None = None,
        on_phase: Callable[[Phase, float], None] | None = None,
        halves: bool = True,
        on_full: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_phase` is called on the engine's thread before every call of a network and every wait, with the next
        phase and the seconds until it is called again, unless the call hangs.

        A call for many rows that fails is made again in `halves`; without them all its pictures fail, so that tests see
        every failure. Before a picture fails for lack of memory, `on_full` is called: it drops unused models from the
        card at once, and returns whether there were any.

        `longest_hold_seconds` is the longest time that a run kept the thread between two of its requests, while all
        other runs waited: slow work there should be a `Work` request.
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
        self._at_work = 0  # `Work` requests on the host's threads
        self._pace = Pace(device)
        self._calls = Calls(device.ladder, halves=halves, on_full=on_full, clock=clock)
        self._warm_up = WarmUp((count for count in device.ladder if count <= self._row_budget), self._calls)
        self._outstanding: deque[float] = deque(maxlen=TURNS_AHEAD + 1)  # seconds that the calls of each turn may take
        self.longest_hold_seconds = 0.0

    # From any thread.

    def start(self) -> None:
        """Start to serve runs."""
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
        """End as if the card was lost, because another thread got `error` from it. Returns at once; all runs fail."""
        with self._gate:
            self._inbox.put(partial(_raise, error))
            self._is_open = False

    @property
    def is_running(self) -> bool:
        """True while runs are served; False before the start, after the stop, and after the card is lost."""
        return self._is_open

    @property
    def broken_calls(self) -> Mapping[str, int]:
        """How many calls of networks failed since the start, by cause, also if smaller ones then succeeded."""
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

        An exact run shares no call with others; an urgent run's rows go first. `on_step` is called on the engine's
        thread and must return at once. Log lines contain `about`. Raises RenderError if the engine does not run.
        """
        run = Run(pipeline, is_exact=exact, is_urgent=urgent, on_step=on_step, on_cancel=self._cancel, about=about)
        self._runs.add(run)  # before the message: if the engine ends, it closes the run
        if not self._post(partial(self._admit, run)):
            self._runs.discard(run)
            raise RenderError("the engine has stopped")
        return run

    def warm_up(self, weights: Weights, within: Within = nullcontext) -> None:
        """Prepare the card's kernels for checkpoints such as `weights` while nothing is rendered.

        Each call is made within a block of `within`. A picture that arrives meanwhile waits for one call at most. On a
        CPU there is nothing to prepare.
        """
        self._post(partial(self._warm_up.add, weights, within))

    def _cancel(self, run: Run) -> None:
        self._post(partial(self._close, run, Cancelled("the image was cancelled")))

    def _post(self, message: Message) -> bool:
        """Leave a message for the engine's thread; return False if the engine has stopped."""
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
        self._read_messages()
        calls, self._waiting = plan(
            self._waiting, self._row_budget, ladder=self.device.ladder, most_rows=self._most_rows
        )
        requests = (ask.request for call in calls for ask in call)
        self._outstanding.append(work_seconds(requests, self.device.kind))
        for call in calls:
            self._make(call)
        self._pace.turn()

    def _most_rows(self, request: Denoise) -> int:
        return self._calls.most_rows(subject(request))

    def _read_messages(self) -> None:
        """Read all messages; if there is nothing to do, warm up, or wait for a message."""
        if not self._waiting and self._inbox.empty() and not self._warm():
            self._report_wait()
            self._inbox.get()()
        while not self._inbox.empty():
            self._inbox.get()()

    def _report_wait(self) -> None:
        """Report the wait: if host threads read results that the card still computes, a hang shows only here."""
        if self._at_work:
            self._on_phase("work", host_seconds(sum(self._outstanding)))
        else:
            self._on_phase("idle", 0.0)

    def _warm(self) -> bool:
        """Make a call of the warm-up and wait for it, unless a picture is in flight; return whether there was one."""
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
        """Make one call and send its answers; in a function of its own, so that no answer outlives it."""
        self._on_phase(_phase(call), call_seconds(sum(self._outstanding)))
        for ask, answered in zip(call, self._answers(call), strict=True):
            self._send(ask, reported(ask, answered))

    def _answers(self, call: Call) -> Sequence[object]:
        try:
            return answer([ask.request for ask in call], is_exact=call[0].run.is_exact, calls=self._calls)
        except Exception as error:
            if is_fatal(error):
                raise
            return [error] * len(call)

    def _send(self, ask: Ask, answered: object) -> None:
        self._advance(ask.run, partial(ask.run.receive, ask.place, answered))

    def _advance(self, run: Run, resume: Callable[[], Sequence[Ask]]) -> None:
        """Resume a run and queue its next requests; forget it if it has ended."""
        started = time.thread_time()
        asks = resume()
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
        """Call its function on a host thread; reads of the card have their own threads and wait for no other work."""
        if isinstance(request, Read):
            return self._readers.submit(_call_inferring, beside(self.device, request.function))
        return self._host.submit(_call_inferring, request.function)

    def _worked(self, ask: Ask, outcome: Future[Any]) -> None:
        """On a host thread: bring the result of `Work` to the engine's thread."""
        if not outcome.cancelled():
            self._post(partial(self._end_work, ask, outcome.exception() or outcome.result()))

    def _end_work(self, ask: Ask, answered: object) -> None:
        self._at_work -= 1
        self._send(ask, answered)

    def _admit(self, run: Run) -> None:
        self._advance(run, run.begin)

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
def _call_inferring(function: Callable[[], Any]) -> Any:  # noqa: ANN401 - any result of a pipeline's function
    return function()
