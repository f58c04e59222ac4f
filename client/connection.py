"""How requests go to a farm and what their answers mean: for clients of both kinds."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx

from client.effects import Attempt, Effect, Json, Pause, Request
from client.errors import (
    BY_STATUS,
    FarmError,
    FieldError,
    NotRunning,
    Refused,
    TooMany,
    Unauthorized,
    Unavailable,
    UnusableAddress,
)

PATIENCE_SECONDS: Final = 30.0  # an API that was killed is back by then
FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 5.0
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
_GATEWAYS: Final = frozenset({httpx.codes.BAD_GATEWAY, httpx.codes.GATEWAY_TIMEOUT})  # of a proxy before the farm
_NO_PROXY: Final = (
    "The proxy that ALL_PROXY, HTTP_PROXY or HTTPS_PROXY names cannot be used: the farm's client speaks to http:// and "
    "https:// proxies, not to SOCKS. Name one of those, or set NO_PROXY to the farm's host."
)


Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)


def opened(kind: Callable[..., Http], url: str, key: str, transport: object) -> Http:
    """Return a client of httpx, of either kind, for a farm. Raises UnusableAddress."""
    try:
        base_url = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UnusableAddress(f"{url} cannot be a farm's address ({error}); check FARM_URL.") from error
    try:
        return kind(
            transport=transport,
            base_url=base_url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=_TIMEOUT,
            trust_env=urlsplit(url).hostname not in _LOOPBACK,  # a proxy does not know this machine's own addresses
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # of SOCKS, of a scheme nobody knows
        raise UnusableAddress(_NO_PROXY) from error


def addressed(
    http: httpx.Client | httpx.AsyncClient,
    method: str,
    path: str,
    **given: Any,  # noqa: ANN401 - httpx's own arguments
) -> httpx.Request:
    """Return a request to the farm, which alone may see the key. Raises UnusableAddress for a link to elsewhere."""
    try:
        request = http.build_request(method, path, **given)
    except httpx.InvalidURL as error:
        raise UnusableAddress(f"{path} cannot be an address ({error}).") from error
    here, there = ((url.scheme, url.host, url.port) for url in (http.base_url, request.url))
    if there != here:
        raise UnusableAddress(f"{path} is not an address of the farm at {http.base_url}: its key is sent nowhere else.")
    return request


def attempts(request: Request, patience_seconds: float, *, is_known: bool) -> Generator[Effect, Any, httpx.Response]:
    """Send a request until it is answered, or would have to be sent twice, or the patience has come to its end.

    An address at which nobody has listened yet is likely a wrong one: nothing is waited for. Raises FarmError.
    """
    patience = patience_seconds if request.patience_seconds is None else request.patience_seconds
    deadline, pause = time.monotonic() + patience, FIRST_PAUSE_SECONDS
    while True:
        try:
            answer: httpx.Response = yield Attempt(request)
        except FarmError as error:
            if isinstance(error, NotRunning):
                is_known |= error.was_sent
                if not is_known:
                    raise
            seconds = error.retry_after or pause
            if not _may_repeat(request, error) or time.monotonic() + seconds > deadline:
                raise
        else:
            return answer
        yield Pause(seconds)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _may_repeat(request: Request, error: FarmError) -> bool:
    """Return whether a request may succeed later, and does no harm where the farm has got it already."""
    if isinstance(error, TooMany) or (isinstance(error, NotRunning) and not error.was_sent):
        return True
    return request.repeats and (isinstance(error, NotRunning | Unavailable) or error.status in _GATEWAYS)


def unreached(error: httpx.HTTPError | httpx.InvalidURL, url: str) -> NotRunning:
    """Return the error for a request without an answer."""
    reason = str(error) or type(error).__name__
    made = NotRunning(
        f"Nothing answers at {url} ({reason}). Start a farm with `make up`, or check FARM_URL.",
        was_sent=not isinstance(error, _NOT_SENT),
    )
    made.__cause__ = error
    return made


def checked(answer: httpx.Response, url: str) -> httpx.Response:
    """Return an answer that has been read, if it is a success. Raises FarmError."""
    if answer.is_success:
        return answer
    error = _problem(answer, url)
    seconds = answer.headers.get("Retry-After", "")
    error.retry_after = float(seconds) if seconds.isdecimal() else None
    raise error


def _problem(answer: httpx.Response, url: str) -> FarmError:
    """Return the error that a problem+json answer stands for."""
    kind = BY_STATUS.get(answer.status_code, FarmError)
    try:
        body: Json = answer.json()
        detail = str(body["detail"])
    except (ValueError, KeyError, TypeError):
        kind = FarmError
        detail = f"{url} answered {answer.status_code} {answer.reason_phrase}; is FARM_URL a farm's address?"
        body = {}
    if issubclass(kind, Refused):
        return kind(detail, tuple(_fields(body.get("errors"))))
    error = kind(f"{detail} Set FARM_API_KEY to your key." if kind is Unauthorized else detail)
    error.status = answer.status_code
    return error


def _fields(errors: object) -> Iterator[FieldError]:
    """Yield what a farm says about fields; another program says other things there, or nothing."""
    for one in errors if isinstance(errors, list) else ():
        if isinstance(one, dict):
            yield FieldError(*(str(one.get(name, "")) for name in ("field", "message", "accepted")))
