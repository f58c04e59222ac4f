"""Does what calls ask for on an event loop: `client.blocking`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, closing, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from client.connection import PATIENCE_SECONDS, addressed, attempts, checked, opened, unreached
from client.effects import Attempt, Effect, Item, Items, Listen, Pause, Request, Steps
from client.stream import Changes

T = TypeVar("T")
R = TypeVar("R")


class Awaiting:
    """The connection of a client whose calls are awaited."""

    def __init__(
        self,
        url: str,
        key: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Raises UnusableAddress.

        For `patience_seconds` a farm that went away is waited for, wherever a request may be sent twice.
        """
        self.url = url.rstrip("/")
        self.patience_seconds = patience_seconds
        self._is_known = False
        self._http = opened(httpx.AsyncClient, self.url, key, transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to the farm."""
        await self._http.aclose()

    async def run(self, steps: Steps[T]) -> T:
        """Do what a call asks for, and return its value."""
        async with AsyncExitStack() as streams:
            with closing(steps):
                return await self._until_item(steps, _Heard(self._http, streams))  # type: ignore[return-value]

    async def items(self, steps: Items[T]) -> AsyncIterator[T]:
        """Do what a call asks for, and yield its values."""
        async with AsyncExitStack() as streams:
            heard = _Heard(self._http, streams)
            with closing(steps):
                while isinstance(reached := await self._until_item(steps, heard), Item):
                    yield reached.value

    async def _until_item(self, steps: Generator[Effect | Item[T], Any, R], heard: _Heard) -> Item[T] | R:
        """Do effects up to the next item or the end: what goes wrong, or cancels, is raised where the call waits.

        After a cancellation the call has its last word: its effects are done even if the task is cancelled again.
        """
        resume: Callable[[], Effect | Item[T]] = partial(next, steps)
        do: Callable[[Effect, _Heard], Awaitable[object]] = self._do
        while True:
            try:
                effect = resume()
            except StopIteration as end:
                ended: R = end.value
                return ended
            if isinstance(effect, Item):
                return effect
            try:
                came = await do(effect, heard)
            except BaseException as error:  # noqa: BLE001 - the call's to handle
                resume = partial(steps.throw, error)
                if isinstance(error, asyncio.CancelledError):
                    do = self._do_whatever_comes
            else:
                resume = partial(steps.send, came)

    async def _do_whatever_comes(self, effect: Effect, heard: _Heard) -> object:
        doing = asyncio.ensure_future(self._do(effect, heard))
        while not doing.done():
            with suppress(asyncio.CancelledError):  # anyio cancels again at every turn of the loop
                await asyncio.wait({doing})
        return doing.result()

    async def _do(self, effect: Effect, heard: _Heard) -> object:
        match effect:
            case Request():
                return await self.run(attempts(effect, self.patience_seconds, is_known=self._is_known))
            case Attempt(Request(method, path, given)):
                return await self._send(method, path, given)
            case Pause(seconds):
                await asyncio.sleep(seconds)
                return None
            case Listen(link):
                return await heard.is_change(link)

    async def _send(self, method: str, path: str, given: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own arguments
        try:
            answer = await self._http.send(addressed(self._http, method, path, **given))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unreached(error, self.url) from error
        self._is_known = True
        return checked(answer, self.url)


class _Heard:
    """The stream of events that a call listens to, open from its first `Listen` until it ends."""

    def __init__(self, http: httpx.AsyncClient, streams: AsyncExitStack) -> None:
        self._http = http
        self._streams = streams
        self._lines: AsyncIterator[str] | None = None
        self._changes = Changes()

    async def is_change(self, link: str) -> bool:
        """Wait for a change; return False where the stream has ended, or there is none."""
        try:
            if self._lines is None:
                accept = {"Accept": "text/event-stream"}
                stream = await self._http.send(addressed(self._http, "GET", link, headers=accept), stream=True)
                self._streams.push_async_callback(stream.aclose)
                if stream.status_code == httpx.codes.OK:
                    self._lines = stream.aiter_lines()
            if self._lines is not None:
                async for line in self._lines:
                    if self._changes.tell(line):
                        return True
        except httpx.HTTPError:
            pass
        await self._streams.aclose()
        self._lines = None
        return False
