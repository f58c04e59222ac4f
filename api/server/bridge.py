"""The Flask application behind an ASGI server: a thread computes, and never waits for a client.

A body is read whole, to disk where it is large, before a thread is taken. An answer is made in lots: a thread makes
one, then it is sent, then a thread makes the next; most are one lot. What has `__aiter__` is sent without a thread.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol, TypeVar, cast, runtime_checkable
from urllib.parse import unquote_to_bytes

import structlog
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from api.server import plain
from api.server.bodies import Body
from api.server.room import MEMORY_BYTES, Room, Spool
from shared.errors import FarmError

T = TypeVar("T")
log = structlog.get_logger(__name__)

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_CHUNK_BYTES: Final = 2**16


@runtime_checkable
class Stream(Protocol):
    """An answer that comes when it comes: it is sent from the event loop."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def close(self) -> None: ...


@dataclass
class _Answer:
    """What the application answered."""

    status: int
    headers: plain.Headers
    content: Iterable[bytes]
    parts: Iterator[bytes]

    def close(self) -> None:
        close = getattr(self.content, "close", None)
        if close:
            close()

    def lot(self, room: Room) -> tuple[Spool, bool]:
        """Return the next part, or some small ones, and whether there are more. Raises Unavailable."""
        spool = Spool(room)
        try:
            for part in self.parts:
                spool.write(part)
                if spool.size >= MEMORY_BYTES:
                    return spool, True
        except BaseException:
            spool.close()
            raise
        return spool, False


class Bridge:
    """Answers requests by the WSGI application `wsgi`, in the threads of `pool`."""

    def __init__(self, wsgi: WSGI, pool: ThreadPoolExecutor, room: Room) -> None:
        self._wsgi = wsgi
        self._pool = pool
        self._room = room

    async def answer(self, scope: HTTPScope, body: Body, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Have the application answer the request of `scope`, whose body is `body`."""
        try:
            answer, lot, has_more = await self._thread(partial(self._begin, environ(scope, body)))
        except FarmError as error:  # no room for the answer; the application tells of its own errors by itself
            await refuse(send, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return
        if body.is_refused:
            answer.headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        if isinstance(answer.content, Stream):
            await _while_there(receive, _send_stream(answer.content, send))
        elif not has_more and lot.size <= _CHUNK_BYTES:
            await _send_lot(lot, send, is_last=True)
        else:
            await _while_there(receive, self._send_lots(answer, lot, send, has_more=has_more))

    def _begin(self, environ: dict[str, Any]) -> tuple[_Answer, Spool, bool]:
        """Make an answer and its first lot, in a thread of the pool."""
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], _: object = None) -> Callable[[bytes], object]:
            started[:] = [(status, headers)]
            return _no_writing

        content = self._wsgi(environ, start)
        if isinstance(content, Stream):
            return _answer(started, content, iter(())), Spool(self._room), False
        answer = _answer(started, content, iter(content))
        return (answer, *self._lot(answer))

    def _lot(self, answer: _Answer) -> tuple[Spool, bool]:
        """Make the next lot of an answer, and let go of what it is made of where that is the last."""
        has_more = False
        try:
            lot, has_more = answer.lot(self._room)
            return lot, has_more
        finally:
            if not has_more:
                answer.close()

    async def _send_lots(self, answer: _Answer, lot: Spool, send: ASGISendCallable, *, has_more: bool) -> None:
        try:
            while has_more:
                await _send_lot(lot, send, is_last=False)
                lot, has_more = await self._thread(partial(self._lot, answer))
            await _send_lot(lot, send, is_last=True)
        except FarmError as error:
            log.warning("an answer broke off", reason=str(error))  # the connection ends: nobody takes it for whole
        finally:
            lot.close()
            if has_more:  # the client has gone, or the farm stops
                self._pool.submit(answer.close)

    async def _thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


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
    try:
        async with aclosing(cast("Any", aiter(stream))) as parts:
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        stream.close()


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


def environ(scope: HTTPScope, body: Body) -> dict[str, Any]:
    """Return a request as WSGI has it: text is bytes in Latin-1, and the body has a length however it came."""
    server, client = scope.get("server") or ("", 0), scope.get("client") or ("", 0)
    given: dict[str, Any] = {
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
        "wsgi.input": body.file,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        _add_header(given, name, value.decode("latin-1"))
    if body.size or "CONTENT_LENGTH" in given:
        given["CONTENT_LENGTH"] = str(body.size)
    return given


def _add_header(given: dict[str, Any], name: bytes, value: str) -> None:
    if b"_" in name or name == b"transfer-encoding":  # X_Forwarded_For would pass for X-Forwarded-For
        return
    key = name.decode("latin-1").upper().replace("-", "_")
    if name not in (b"content-type", b"content-length"):
        key = f"HTTP_{key}"
    joint = "; " if name == b"cookie" else ","
    given[key] = f"{given[key]}{joint}{value}" if key in given else value


def _answer(
    started: list[tuple[str, list[tuple[str, str]]]], content: Iterable[bytes], parts: Iterator[bytes]
) -> _Answer:
    ((status, headers),) = started
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return _Answer(int(status.split(" ", 1)[0]), encoded, content, parts)


def _no_writing(_: bytes) -> None:
    raise NotImplementedError("Answers are iterables here.")
