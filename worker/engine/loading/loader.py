"""The one thread of a process that loads model files, on its own stream, so that no other thread waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import suppress
from threading import Condition, Thread
from typing import Any, TypeVar

import structlog

from shared.errors import RenderError
from worker.engine import transfers
from worker.engine.devices import Device
from worker.engine.failures import duplicate, without_tracebacks

log = structlog.get_logger(__name__)

T = TypeVar("T")
Spare = Generator[None, None, None]
"""Work that can wait, in steps."""


class Loader:
    """Does one load after the other. `start` it, let it `run` loads from any thread, `stop` it.

    Between loads it does spare work, a step at a time; the next load drops the rest of it.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._changed = Condition()
        self._wanted: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._spare: deque[Spare] = deque()
        self._is_open = False
        self._ended: Exception = RenderError("the loader has stopped")  # for loads after the end
        self._thread = Thread(target=self._serve, name=f"loading {device.name}", daemon=True)

    # From any thread.

    def start(self) -> None:
        """Start loading."""
        self._is_open = True
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current load; loads that wait fail."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def run(self, load: Callable[[], T]) -> T:
        """Return the result of `load`, called on the loader's thread in its turn. Raises as `ask` and `load`."""
        return self.ask(load).result()

    def ask(self, load: Callable[[], T]) -> Future[T]:
        """Return the future result of `load`, which can be cancelled until it begins.

        Raises RenderError if the loader has stopped, and its error if it failed.
        """
        future: Future[T] = Future()
        with self._changed:
            if not self._is_open:
                raise duplicate(self._ended)
            self._wanted.append((load, future))
            self._changed.notify_all()
        return future

    def add_spare(self, steps: Spare) -> None:
        """Do `steps` while no load waits; they are closed at the next load, or when all are done."""
        with self._changed:
            self._spare.append(steps)
            self._changed.notify_all()

    @property
    def has_spare(self) -> bool:
        """Whether spare work waits or is being done."""
        return bool(self._spare)

    # On the loader's thread.

    def _serve(self) -> None:
        try:
            with transfers.own_stream(self._device):
                while self._wait_for_work():
                    if self._wanted:
                        self._load(*self._wanted.popleft())
                    else:
                        self._step(self._spare[0])
        except Exception as error:  # the edge of the thread: every waiting load fails with it
            log.exception("the loader failed")
            self._ended = without_tracebacks(error)
        with self._changed:
            self._is_open = False
        self._drop_spare()
        for _, future in self._wanted:
            if future.set_running_or_notify_cancel():
                future.set_exception(duplicate(self._ended))

    def _wait_for_work(self) -> bool:
        """Return True when there is something to do, and False after the stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._spare or not self._is_open)
            return self._is_open

    def _load(self, load: Callable[[], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        self._drop_spare()
        try:
            future.set_result(load())
        except BaseException as error:  # noqa: BLE001 - an edge: it goes to the thread that waits for the model
            future.set_exception(error)
        finally:
            del future, load  # an error holds this frame, which would hold the future: a cycle

    def _step(self, steps: Spare) -> None:
        try:
            next(steps)
        except StopIteration:
            self._spare.remove(steps)
        except Exception:  # an edge: spare work must not stop the loader
            log.exception("spare work of the loader failed")
            self._spare.remove(steps)

    def _drop_spare(self) -> None:
        while self._spare:
            with suppress(Exception):
                self._spare.popleft().close()
