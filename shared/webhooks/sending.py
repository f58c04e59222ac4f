"""Sends messages: signed, to the address that was looked at, within a bounded time, without following anybody."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from http import HTTPStatus
from ssl import SSLContext
from typing import Any, Final

import httpcore
import structlog
from standardwebhooks.webhooks import Webhook

from shared.db.sessions import Sessions, transact
from shared.version import version
from shared.webhooks import addresses, deliveries, messages
from shared.webhooks.addresses import Inside, Networks, Nowhere
from shared.webhooks.deliveries import Failure, Outgoing

log = structlog.get_logger(__name__)

SECONDS: Final = 10.0  # that a receiver may take for all of its answer
_AT_ONCE: Final = 6  # receivers
_ROUND_SECONDS: Final = 30.0  # then no more is taken: the process of the chores has to be able to stop
_LOOK_SECONDS: Final = 1.0  # for what has become due while others are being sent
_AWAY: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, 502, 503, 504})  # what stands before a receiver says so


@dataclass(frozen=True)
class Sent:
    """What one round did."""

    delivered: int = 0
    failed: int = 0
    dead: int = 0  # of those, given up


def send_due(sessions: Sessions, allowed: Networks) -> Sent:
    """Send what is due, to several receivers at a time. Raises Unavailable.

    May be ended anywhere: what was being sent is sent again a minute later.
    """
    delivered = failed = dead = 0
    end, running = time.monotonic() + _ROUND_SECONDS, dict[Future[int | None], Outgoing]()
    away: frozenset[str] | None = None  # None: not asked for, as long as nothing is due
    with ThreadPoolExecutor(_AT_ONCE, "webhook") as threads:
        while True:
            is_open = time.monotonic() < end and len(running) < _AT_ONCE
            take = partial(deliveries.take, sending=running.values(), away=away or frozenset())
            found = transact(sessions, take) if is_open else None
            if found is not None:
                running[threads.submit(_deliver, sessions, found, allowed)] = found
                away = transact(sessions, deliveries.owners_away) if away is None else away
                continue
            if not running:
                return Sent(delivered, failed, dead)
            for done in wait(running, _LOOK_SECONDS, FIRST_COMPLETED).done:
                del running[done]
                given_up = done.result()
                if given_up is None:
                    delivered += 1
                else:
                    failed, dead = failed + 1, dead + given_up
                    away = transact(sessions, deliveries.owners_away)


def _deliver(sessions: Sessions, outgoing: Outgoing, allowed: Networks) -> int | None:
    """Send a message and record how it fared; return None if it arrived, else how many were given up."""
    failure = send(outgoing, allowed)
    if failure is None:
        transact(sessions, partial(deliveries.delivered, outgoing=outgoing))
        return None
    dead: int = transact(sessions, partial(deliveries.failed, outgoing=outgoing, failure=failure))
    log.info("webhook not delivered", delivery=outgoing.id, tries=outgoing.tries, reason=failure.reason, given_up=dead)
    return dead


def send(outgoing: Outgoing, allowed: Networks, seconds: float = SECONDS) -> Failure | None:
    """Send a message; return why it did not arrive, or None. The receiver's answer is not read beyond its head."""
    body = messages.body(outgoing.payload, outgoing.format)
    headers = signed(outgoing.message, body, outgoing.secrets, datetime.now(UTC))
    try:
        status, retry_after = _post(outgoing.url, headers, body.encode(), allowed, seconds)
    except (Inside, Nowhere) as error:
        return Failure(str(error), is_away=True)
    except (httpcore.TimeoutException, TimeoutError):
        return Failure(f"did not answer within {seconds:g} s", is_away=True)
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError, ValueError) as error:
        return Failure(f"could not be reached: {str(error) or type(error).__name__}"[:300], is_away=True)
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    is_elsewhere = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    reason = f"answered {status}, and redirects are not followed" if is_elsewhere else f"answered {status}"
    return Failure(reason, is_away=status in _AWAY, is_gone=status == HTTPStatus.GONE, pause_seconds=retry_after)


def signed(message: str, body: str, secrets: Sequence[str], at: datetime) -> dict[str, str]:
    """Return the headers of a message as Standard Webhooks has them, with a signature of each secret."""
    signatures = [str(Webhook(secret).sign(message, at, body)) for secret in secrets]
    return {
        "content-type": "application/json",
        "user-agent": f"Stepfarm/{version()}",
        "webhook-id": message,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _post(url: str, headers: Mapping[str, str], body: bytes, allowed: Networks, seconds: float) -> tuple[int, float]:
    """Return the status of the answer, and the seconds that it asks to wait. Raises httpcore's errors, Inside, Nowhere.

    No proxy of the environment is asked: it would reach what must not be reached.
    """
    network = _Checked(allowed, time.monotonic() + seconds)
    tls = _tls() if url.startswith("https:") else None  # it reads some hundred certificates
    with (
        httpcore.ConnectionPool(ssl_context=tls, network_backend=network) as pool,
        pool.stream("POST", url, headers=[*headers.items(), ("connection", "close")], content=body) as answer,
    ):
        given = {name.lower(): value for name, value in answer.headers}
        wanted = given.get(b"retry-after", b"")
        return answer.status, float(wanted) if wanted.isdigit() and len(wanted) < 9 else 0.0


@cache
def _tls() -> SSLContext:
    return httpcore.default_ssl_context()


class _Checked(httpcore.NetworkBackend):
    """Connects to no address but one that was looked at, and to none that is inside."""

    def __init__(self, allowed: Networks, deadline: float) -> None:
        self._allowed, self._deadline = allowed, deadline
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - one deadline is all
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        found = addresses.resolved(host, port, self._allowed)
        for number, address in enumerate(found, 1):
            try:
                left = _left(self._deadline) / (len(found) - number + 1)  # one that is silent leaves time for the next
                stream = self._network.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(found):
                    raise
            else:
                return _Timed(stream, self._deadline)
        raise AssertionError("unreachable")


class _Timed(httpcore.NetworkStream):
    """A connection that has one deadline for all: a receiver cannot stretch it by a byte now and then."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - as above
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - as above
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline)), self._deadline)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    """Return the seconds that are left. Raises httpcore.ReadTimeout if there are none."""
    if (left := deadline - time.monotonic()) <= 0:
        raise httpcore.ReadTimeout
    return left
