"""The Flask application behind an ASGI server: a thread computes, and never waits for a client.

A body is read whole, a large one to disk, before a thread is taken. An answer is made in lots: a thread makes one, then
it is sent, then a thread makes the next; most answers are one lot. An answer with `__aiter__` is sent without a thread.
One that can be made only later is awaited without a thread, and then the application is asked again.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from http import HTTPStatus
from io import BytesIO
from typing import Any, Final, Protocol, cast, runtime_checkable
from urllib.parse import unquote_to_bytes

import structlog
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from api.http.later import SUPPORTED, Later
from api.security.proxies import WSGI
from api.server import plain
from api.server.bodies import Body
from api.server.room import MEMORY_BYTES, Room, Spool
from api.server.threads import Threads
from shared.errors import FarmError

log = structlog.get_logger(__name__)

Environ = dict[str, Any]
_CHUNK_BYTES: Final = 2**16


@runtime_checkable
class Stream(Protocol):
    """An answer that comes when it comes: it is sent from the event loop."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def close(self) -> None: ...


class _Answer:
    """What the application answers to one request; made in threads, one at a time."""

    def __init__(self, wsgi: WSGI, environ: Environ, room: Room, address: str) -> None:
        self._wsgi = wsgi
        self._environ = environ
        self._room = room
        self._address = address
        self._parts: Iterator[bytes] = iter(())
        self.status = HTTPStatus.INTERNAL_SERVER_ERROR.value
        self.headers: plain.Headers = []
        self.content: Iterable[bytes] = ()
        self.is_open = False
        self.lot = self._spool()
        self.has_more = False

    def begin(self) -> None:
        """Ask the application, and make the first lot; after a wait, ask it again. Raises Unavailable."""
        self._close_content()
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], _: object = None) -> Callable[[bytes], object]:
            started[:] = [(status, headers)]
            return _no_writing

        self.content, self.is_open = self._wsgi(self._environ, start), True
        if not isinstance(self.content, (Stream, Later)):
            self._parts = iter(self.content)
            self.make_lot()
        ((status, headers),) = started
        self.status = int(status.split(" ", 1)[0])
        self.headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]

    def make_lot(self) -> None:
        """Make the next part, or some small ones, and at the end close the content. Raises Unavailable."""
        self.lot.close()
        self.lot, self.has_more = self._spool(), False
        for part in self._parts:
            self.lot.write(part)
            if self.lot.size >= MEMORY_BYTES:
                self.has_more = True
                return
        self._close_content()

    def close(self) -> None:
        """Release the lot and the content. May be called again, but not while a thread works on it."""
        self.lot.close()
        self._close_content()

    def _close_content(self) -> None:
        self.is_open = False
        if close := getattr(self.content, "close", None):
            close()

    def _spool(self) -> Spool:
        return Spool(self._room, self._address)


class Bridge:
    """Answers requests by the WSGI application `wsgi`, in `threads`."""

    def __init__(self, wsgi: WSGI, threads: Threads, room: Room) -> None:
        self._wsgi = wsgi
        self._threads = threads
        self._room = room

    async def answer(self, environ: Environ, body: Body, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Have the application answer the request of `environ`, whose body is `body`, unless its client leaves."""
        environ["wsgi.input"], environ[SUPPORTED] = body.file, True
        if body.size or "CONTENT_LENGTH" in environ:
            environ["CONTENT_LENGTH"] = str(body.size)
        answering = self._answer(environ, body, send)
        if body.is_refused:
            await answering  # to look for the client would be to ask for that body
        else:
            await _while_there(receive, answering)

    async def _answer(self, environ: Environ, body: Body, send: ASGISendCallable) -> None:
        answer = _Answer(self._wsgi, environ, self._room, body.spool.address)
        try:
            try:
                await self._threads.begin(answer.begin, body.size)
                while isinstance(answer.content, Later):
                    body.spool.close()  # it has been read
                    await answer.content.happened()
                    await self._threads.run(answer.begin)
            except FarmError as error:  # no place for it; the application answers its own errors
                await refuse(send, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
                return
            if body.is_refused:
                answer.headers.append((b"connection", b"close"))
            await self._send(answer, send)
        finally:
            answer.lot.close()
            if answer.is_open:  # the client has gone, or the farm stops
                self._threads.run_soon(answer.close)

    async def _send(self, answer: _Answer, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        if isinstance(answer.content, Stream):
            await _send_stream(answer.content, send)  # it is closed in a thread
            return
        try:
            while answer.has_more:
                await _send_lot(answer.lot, send, is_last=False)
                await self._threads.run(answer.make_lot)
            await _send_lot(answer.lot, send, is_last=True)
        except FarmError as error:
            log.warning("an answer broke off", reason=str(error))  # the connection ends: nobody takes it for whole


async def refuse(send: ASGISendCallable, status: HTTPStatus, detail: str) -> None:
    """Answer with a problem, and end the connection."""
    headers, body = plain.problem(status, detail)
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _while_there(receive: ASGIReceiveCallable, sending: Any) -> None:  # noqa: ANN401 - a coroutine
    """Send for as long as the client is there."""
    task = asyncio.ensure_future(sending)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _gone(receive: ASGIReceiveCallable) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # the end of a body that has been read


async def _send_stream(stream: Stream, send: ASGISendCallable) -> None:
    async with aclosing(cast("Any", aiter(stream))) as parts:
        async for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_lot(lot: Spool, send: ASGISendCallable, *, is_last: bool) -> None:
    lot.file.seek(0)
    left = lot.size
    while left > _CHUNK_BYTES:
        left -= _CHUNK_BYTES
        await send({"type": "http.response.body", "body": lot.file.read(_CHUNK_BYTES), "more_body": True})
        await asyncio.sleep(0)  # the others have their turn, and a client that has gone is seen to have
    rest = lot.file.read()
    lot.close()
    await send({"type": "http.response.body", "body": rest, "more_body": not is_last})


def environ_of(scope: HTTPScope) -> Environ:
    """Return a request as WSGI has it, without its body: text is bytes in Latin-1."""
    server, client = scope.get("server") or ("", 0), scope.get("client") or ("", 0)
    given: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 0),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        _add_header(given, name, value.decode("latin-1"))
    return given


def _add_header(given: Environ, name: bytes, value: str) -> None:
    if b"_" in name or name == b"transfer-encoding":  # X_Forwarded_For would pass for X-Forwarded-For
        return
    key = name.decode("latin-1").upper().replace("-", "_")
    if name not in (b"content-type", b"content-length"):
        key = f"HTTP_{key}"
    joint = "; " if name == b"cookie" else ","
    given[key] = f"{given[key]}{joint}{value}" if key in given else value


def _no_writing(_: bytes) -> None:
    raise NotImplementedError("Answers are iterables here.")
