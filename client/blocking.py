"""Does what calls ask for, one after the other, in the thread that calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from client.connection import PATIENCE_SECONDS, addressed, attempts, checked, opened, unreached
from client.effects import Attempt, Effect, Item, Items, Listen, Pause, Request, Steps
from client.stream import Changes

T = TypeVar("T")
R = TypeVar("R")


class Blocking:
    """The connection of a client whose calls return when they are done."""

    def __init__(
        self,
        url: str,
        key: str = "",
        transport: httpx.BaseTransport | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Raises UnusableAddress.

        For `patience_seconds` a farm that went away is waited for, wherever a request may be sent twice.
        """
        self.url = url.rstrip("/")
        self.patience_seconds = patience_seconds
        self._is_known = False
        self._http = opened(httpx.Client, self.url, key, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the farm."""
        self._http.close()

    def run(self, steps: Steps[T]) -> T:
        """Do what a call asks for, and return its value."""
        with ExitStack() as streams, closing(steps):
            return self._until_item(steps, _Heard(self._http, streams))  # type: ignore[return-value]

    def items(self, steps: Items[T]) -> Iterator[T]:
        """Do what a call asks for, and yield its values."""
        with ExitStack() as streams, closing(steps):
            heard = _Heard(self._http, streams)
            while isinstance(reached := self._until_item(steps, heard), Item):
                yield reached.value

    def _until_item(self, steps: Generator[Effect | Item[T], Any, R], heard: _Heard) -> Item[T] | R:
        """Do effects up to the next item or the end: what goes wrong, Ctrl-C too, is raised where the call waits."""
        resume: Callable[[], Effect | Item[T]] = partial(next, steps)
        while True:
            try:
                effect = resume()
            except StopIteration as end:
                ended: R = end.value
                return ended
            if isinstance(effect, Item):
                return effect
            try:
                came = self._do(effect, heard)
            except BaseException as error:  # noqa: BLE001 - the call's to handle
                resume = partial(steps.throw, error)
            else:
                resume = partial(steps.send, came)

    def _do(self, effect: Effect, heard: _Heard) -> object:
        match effect:
            case Request():
                return self.run(attempts(effect, self.patience_seconds, is_known=self._is_known))
            case Attempt(Request(method, path, given)):
                return self._send(method, path, given)
            case Pause(seconds):
                time.sleep(seconds)
                return None
            case Listen(link):
                return heard.is_change(link)

    def _send(self, method: str, path: str, given: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own arguments
        try:
            answer = self._http.send(addressed(self._http, method, path, **given))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unreached(error, self.url) from error
        self._is_known = True
        return checked(answer, self.url)


class _Heard:
    """The stream of events that a call listens to, open from its first `Listen` until it ends."""

    def __init__(self, http: httpx.Client, streams: ExitStack) -> None:
        self._http = http
        self._streams = streams
        self._lines: Iterator[str] | None = None
        self._changes = Changes()

    def is_change(self, link: str) -> bool:
        """Wait for a change; return False where the stream has ended, or there is none."""
        try:
            if self._lines is None:
                accept = {"Accept": "text/event-stream"}
                stream = self._http.send(addressed(self._http, "GET", link, headers=accept), stream=True)
                self._streams.callback(stream.close)
                self._lines = stream.iter_lines() if stream.status_code == httpx.codes.OK else iter(())
            if any(map(self._changes.tell, self._lines)):
                return True
        except httpx.HTTPError:
            pass
        self._streams.close()
        self._lines = None
        return False
