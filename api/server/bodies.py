"""A request's body, received whole before anything works on it: bounded, paced, on disk where it is large."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import IO, Any

from uvicorn._types import ASGIReceiveCallable, HTTPScope

from api.server.connection import Deadlines
from api.server.pace import Pace
from api.server.room import MEMORY_BYTES, Spool
from shared.errors import FarmError


class ClientGone(Exception):
    """The client has left, or its body cannot be read."""


class BodyTooSlow(FarmError):
    """The body came too slowly."""

    status = HTTPStatus.REQUEST_TIMEOUT


@dataclass
class Body:
    """A request's body. One that is refused has no bytes, and a size for which the application refuses it by itself."""

    spool: Spool
    size: int
    is_refused: bool = False

    @property
    def file(self) -> IO[Any]:
        """The bytes, to be read from the start."""
        if self.is_refused:
            return BytesIO()
        self.spool.file.seek(0)
        return self.spool.file


@dataclass(frozen=True)
class Bounds:
    """What a request may bring."""

    most: int
    is_known: Callable[[], Awaitable[bool]]  # whether this client may send large bodies


async def receive_body(
    scope: HTTPScope, receive: ASGIReceiveCallable, spool: Spool, bounds: Bounds, deadlines: Deadlines
) -> Body:
    """Return the body of a request, in `spool`. Raises ClientGone, BodyTooSlow, Unavailable."""
    content_length = next((int(value) for name, value in scope["headers"] if name == b"content-length"), None)
    has_body = bool(content_length) or any(name == b"transfer-encoding" for name, _ in scope["headers"])
    if not has_body:
        return Body(spool, 0)
    if content_length and content_length > bounds.most:
        return Body(spool, content_length, is_refused=True)
    if content_length and content_length > MEMORY_BYTES and not await bounds.is_known():
        return Body(spool, 0, is_refused=True)
    return await _receive(receive, spool, bounds, deadlines, is_known=bool(content_length))


async def _receive(
    receive: ASGIReceiveCallable, spool: Spool, bounds: Bounds, deadlines: Deadlines, *, is_known: bool
) -> Body:
    loop = asyncio.get_running_loop()
    pace = Pace(loop.time(), deadlines.stall, deadlines.body)
    has_more = True
    while has_more:
        data, has_more = await _next(receive, pace)
        pace.moved(len(data), loop.time())
        if spool.size + len(data) > bounds.most:
            return Body(spool, bounds.most + 1, is_refused=True)
        if not is_known and spool.size + len(data) > MEMORY_BYTES:
            if not await bounds.is_known():
                return Body(spool, 0, is_refused=True)
            is_known = True
            pace.resume(loop.time())
        spool.write(data)
    return Body(spool, spool.size)


async def _next(receive: ASGIReceiveCallable, pace: Pace) -> tuple[bytes, bool]:
    try:
        async with asyncio.timeout_at(pace.due):
            message = await receive()
    except TimeoutError:
        raise BodyTooSlow("The body of the request came too slowly.") from None
    if message["type"] != "http.request":
        raise ClientGone
    return message["body"], message["more_body"]
