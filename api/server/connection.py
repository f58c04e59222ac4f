"""One client's connection: HTTP/1.1 read strictly, with a deadline on all that the client has to do.

uvicorn's protocol does the work. Added here: bounds on a request's head, the few things that its parser (llhttp) lets
through and that a proxy might read otherwise, and an end for clients that are too slow, which take no thread meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.server import plain

_HEAD_BYTES: Final = 2**16
_TARGET_BYTES: Final = 2**13
_HEADERS: Final = 100
_PIPELINED: Final = 16
_TAKEN_BYTES: Final = 3 * 2**14
_LINGER_SECONDS: Final = 5.0
_LINGER_BYTES: Final = 2**27

SILENT, READING, WRITING = range(3)  # the order in which connections are closed for another client


class _Unreadable(Exception):
    """A request that the parser took and this farm does not."""

    def __init__(self, detail: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status


@dataclass(frozen=True)
class Deadlines:
    """How slow a client may be, in seconds."""

    head: float  # for the headers of a request, and for the first byte of a connection
    stall: float  # for each 16 KiB of a body, and for each 48 KiB of an answer
    body: float  # for a whole body


class _Transport:
    """A connection's transport, whose end waits for what the client still sends: else the answer might be lost."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all but the end is the transport's own
        return getattr(self._transport, name)

    def close(self) -> None:
        self._connection.finish()

    def is_closing(self) -> bool:
        return self._connection.is_finishing or self._transport.is_closing()


MakePlace = Callable[["Connection"], bool]


class Connection(HttpToolsProtocol):
    """A client's connection. `overdue` tells when it has been waited for too long; `expire` then ends it."""

    def __init__(self, deadlines: Deadlines, make_place: MakePlace, **given: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(**given)
        self._deadlines = deadlines
        self._make_place = make_place
        self._socket: asyncio.Transport
        self.is_finishing = False
        self.since = self.loop.time()  # when it connected, was last answered, or began to end
        self._head_since: float | None = None
        self._head_bytes = 0  # that came while the head is not whole
        self._fields = self._field_bytes = 0
        self._has_asked = False
        self._paused_since: float | None = None
        self._discarded = 0
        self._unsent = 0  # of the answer, when enough of it was taken last, while the connection ends
        self._unreadable: _Unreadable | None = None
        self._answered: RequestResponseCycle | None = None  # `cycle` is the latest that has come

    @property
    def is_busy(self) -> bool:
        """True while a request has come and is not answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def patience(self) -> int | None:
        """What the server waits for this client to do; None while it is the client who waits."""
        if self._paused_since is not None:
            return WRITING
        if not self.is_busy:
            return SILENT
        return READING if self.cycle.more_body else None

    def overdue(self, now: float) -> bool:
        """True where the client has been waited for too long."""
        if self.is_finishing:
            self._note_taken(now)
            lingering = min(self._deadlines.stall, _LINGER_SECONDS)
            return now - self.since > (self._deadlines.stall if self._unsent else lingering)
        if self._paused_since is not None:
            return now - self._paused_since > self._deadlines.stall
        if self.is_busy:
            return False  # a body has a pace of its own, and the time of an answer is the farm's
        if self._head_since is not None:
            return now - self._head_since > self._deadlines.head
        if self._socket.get_write_buffer_size():
            return now - self.since > self._deadlines.stall
        return not self._has_asked and now - self.since > self._deadlines.head

    def expire(self) -> None:
        """End it: with the reason for one whose request is on its way, at once for the others."""
        if self._head_since is not None and not self.is_busy and not self.is_finishing:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The headers of the request came too slowly.")
        else:
            self._socket.abort()

    def finish(self) -> None:
        """End it once all has been sent; of a request that has not come whole the rest is passed over for a while."""
        if self.is_finishing:
            return
        self.is_finishing, self.since = True, self.loop.time()
        self._unsent = self._socket.get_write_buffer_size()
        is_read = not self.is_busy or not self.cycle.more_body
        is_whole = is_read and self._unreadable is None and self._head_since is None
        if is_whole:
            self._socket.close()
        else:
            self._socket.write_eof()
            self.flow.resume_reading()

    def _note_taken(self, now: float) -> None:
        """Count the time from the last 48 KiB that the client took, or from the end of them all."""
        left = self._socket.get_write_buffer_size()
        if self._unsent and (left <= self._unsent - _TAKEN_BYTES or not left):
            self._unsent, self.since = left, now

    def give_up(self) -> None:
        """Close it at once, because another client needs the place."""
        self.connections.discard(self)
        self._socket.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._socket = transport
        self.transport = cast("asyncio.Transport", _Transport(transport, self))
        if not self._make_place(self):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "Too many clients are connected: try again later.")

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is sent to the client too, which uvicorn does for the latest request alone."""
        for cycle in filter(None, (self._answered, *(cycle for cycle, _ in self.pipeline))):
            cycle.disconnected = True
            cycle.message_event.set()
            cycle.body = bytearray()  # nobody reads it, and the garbage collector comes late
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.is_finishing:
            self._discard(data)
            return
        if self._head_since is None and not self.is_busy:
            self._begin_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_since is not None and self._head_bytes > _HEAD_BYTES and not self.is_finishing:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers of the request are too large.")

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - as uvicorn calls it
        why = self._unreadable or _Unreadable("The request is not well-formed HTTP/1.1.")
        self._unreadable = why
        self._refuse(why.status, why.detail)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_head()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > _TARGET_BYTES:
            self._reject("The address of the request is too long.", HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._field_bytes += len(name) + len(value)
        if self._fields > _HEADERS or self._field_bytes > _HEAD_BYTES:
            self._reject(
                "The headers of the request are too many or too large.", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            )
        if self._head_since is not None:  # else it is a trailer, which must not pass for a header
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= _PIPELINED:
            self._reject("Too many requests were sent at once.")
        self._check_head()
        self._head_since, self._has_asked = None, True
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser reads no further request behind it

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        self._paused_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._paused_since = None
        super().resume_writing()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: the request is answered as if it had asked for no upgrade, as HTTP has it."""

    def _begin_head(self) -> None:
        self._head_since = self.loop.time()
        self._head_bytes = self._fields = self._field_bytes = 0

    def _check_head(self) -> None:
        """Raise where a proxy might have read the head otherwise than it is read here."""
        version, method = self.parser.get_http_version(), self.parser.get_method()
        hosts = [value for name, value in self.headers if name == b"host"]
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if version not in ("1.1", "1.0"):
            self._reject("The farm accepts only HTTP/1.1.", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        if len(hosts) > 1 or (not hosts and version == "1.1"):
            self._reject("The request must have one Host header.")
        if codings and (version == "1.0" or [coding.lower() for coding in codings] != [b"chunked"]):
            self._reject("A body may be sent with Content-Length or as Transfer-Encoding: chunked.")
        if method == b"CONNECT":
            self._reject("The farm is not a proxy: send only a path.", HTTPStatus.NOT_IMPLEMENTED)
        if not self.url.startswith(b"/") and (method, self.url) != (b"OPTIONS", b"*"):
            self._check_whole_address(hosts)

    def _check_whole_address(self, hosts: list[bytes]) -> None:
        parsed = httptools.parse_url(self.url)
        named = (parsed.host or b"") + (b":%d" % parsed.port if parsed.port else b"")
        if parsed.schema not in (b"http", b"https") or hosts != [named]:
            self._reject("The request's address names another host than its Host header.")

    def _reject(self, detail: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        self._unreadable = _Unreadable(detail, status)
        raise self._unreadable

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer what cannot be read, and end the connection; silently where that would pass for another answer."""
        is_of_body = self.is_busy and self.cycle.more_body and not self.cycle.response_started and not self.pipeline
        if self.is_busy and not is_of_body:
            self._socket.abort()
            return
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._unreadable = self._unreadable or _Unreadable(detail, status)
        self.transport.write(plain.raw(status, detail))
        self.finish()

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > _LINGER_BYTES:
            self._socket.abort()
