"""A run: one image being rendered. Another thread waits for it; only the engine's thread advances it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog
from torch import Tensor

from shared.errors import RenderError, RenderFailed
from worker.engine.cuda_errors import is_fatal, is_out_of_memory
from worker.engine.failures import duplicate, no_room, without_tracebacks
from worker.engine.requests import Asks, Denoise, Request

log = structlog.get_logger(__name__)

_MISSING: Final = object()


@dataclass(frozen=True, eq=False)
class Step:
    """One denoising call of one run, for its watcher. The card may still be computing the tensors."""

    index: int  # from 1
    steps: int
    x: Tensor  # what went in [channels, h/cell, w/cell]
    denoised: Tensor
    is_second_pass: bool = False  # of a render of two
    request: Denoise | None = None  # the call itself; its tensors may be views of those of many pictures


@dataclass(frozen=True, eq=False)
class Ask:
    """One request that a run waits for, and its place among those of the same tuple."""

    run: Run
    place: int
    request: Request


class Run:
    """One image being rendered: a pipeline that waits for answers.

    A failed run holds no tensors that it was rendered with. The log has the traceback, with `about`.
    """

    def __init__(  # noqa: PLR0913 - how one run differs from others
        self,
        pipeline: Asks[Any],
        *,
        is_exact: bool = False,
        is_urgent: bool = False,
        on_step: Callable[[Step], None] | None = None,
        on_cancel: Callable[[Run], None],
        about: Mapping[str, object] | None = None,
    ) -> None:
        self.is_exact = is_exact
        self.is_urgent = is_urgent
        self.on_step = on_step
        self._pipeline = pipeline
        self._on_cancel = on_cancel
        self._about = about or {}
        self._outcome: Future[Any] = Future()
        self._answers: list[Any] = []
        self._is_tuple = False

    # For the thread that waits, any one.

    def result(self, timeout: float | None = None) -> Any:  # noqa: ANN401 - any result of a pipeline
        """Return the pipeline's result. Raises RenderError that says why there is none, or TimeoutError."""
        error = self._outcome.exception(timeout)
        if error is not None:
            raise duplicate(error)
        return self._outcome.result()

    def cancel(self) -> None:
        """Ask the engine to close the run between two turns; does nothing if it has ended."""
        self._on_cancel(self)

    @property
    def done(self) -> bool:
        """True once there is a result or an error."""
        return self._outcome.done()

    # For the engine's thread.

    def begin(self) -> list[Ask]:
        """Start the pipeline; return its first requests."""
        return self._resume(self._pipeline.send, None)

    def receive(self, place: int, answer: object) -> list[Ask]:
        """Take the answer to one request, which may be an error; if no answer is missing, return the next requests."""
        if self.done:
            return []
        self._answers[place] = answer
        if any(one is _MISSING for one in self._answers):
            return []
        answers, self._answers = self._answers, []
        failures = [one for one in answers if isinstance(one, BaseException)]
        if failures:
            return self._resume(self._pipeline.throw, failures[0])
        return self._resume(self._pipeline.send, tuple(answers) if self._is_tuple else answers[0])

    def close(self, reason: Exception) -> None:
        """End the run, if it has not ended, with `reason` for the thread that waits."""
        if self.done:
            return
        with suppress(BaseException):  # an error of a pipeline that is being closed changes nothing
            self._pipeline.close()
        self._end()
        self._outcome.set_exception(reason)

    def _resume(self, resume: Callable[[Any], Request | tuple[Request, ...]], value: object) -> list[Ask]:
        try:
            yielded = resume(value)
        except StopIteration as end:
            self._end()
            self._outcome.set_result(end.value)
            return []
        except BaseException as error:
            if is_fatal(error):
                raise
            self._fail(error)
            return []
        self._is_tuple = isinstance(yielded, tuple)
        requests: Sequence[Request] = yielded if isinstance(yielded, tuple) else (yielded,)
        self._answers = [_MISSING] * len(requests)
        return [Ask(self, place, request) for place, request in enumerate(requests)]

    def _fail(self, error: BaseException) -> None:
        """End the run with its error: no failure of a run reaches another one."""
        failure = _for_people(error)
        if isinstance(failure, RenderFailed):
            log.error("render failed", **self._about, exc_info=error)
        self._end()
        without_tracebacks(error)
        self._outcome.set_exception(failure)

    def _end(self) -> None:
        """Release answers and watcher."""
        self._answers = []
        self.on_step = None


def reported(ask: Ask, answered: object) -> object:
    """Return the answer after the run's watcher saw the step; an error of the watcher replaces it."""
    request, on_step = ask.request, ask.run.on_step
    denoised = answered[0] if isinstance(answered, tuple) else answered  # the first sum; others follow
    if on_step and isinstance(request, Denoise) and isinstance(denoised, Tensor):
        try:
            on_step(Step(request.call, request.calls, request.x, denoised, request.is_second_pass, request))
        except Exception as error:  # noqa: BLE001 - a watcher's error ends only its run
            return error
    return answered


def _for_people(error: BaseException) -> RenderError:
    """Return `error` as a RenderError."""
    if isinstance(error, RenderError):
        return error
    if is_out_of_memory(error):
        return no_room("this picture")
    return RenderFailed(f"the render failed: {type(error).__name__}: {error}")
