"""What a call asks of the world, as values: a call is a generator that yields them and gets what came of each.

So a call is written once. A client that blocks and one that is awaited do the same effects, each in its own way.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import httpx

from client.errors import FarmError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Json = dict[str, Any]

API: Final = "/api/v1"
_REPEATABLE: Final = frozenset({"GET", "PUT", "PATCH"})  # twice is as good as once


@dataclass(frozen=True)
class Request:
    """A request, sent again while the farm is away and a repetition does no harm; yields its answer, a success."""

    method: str
    path: str
    given: Mapping[str, Any] = field(default_factory=dict)  # as httpx takes it
    repeats: bool = False  # whether the farm may get it twice
    patience_seconds: float | None = None  # else that of the client


@dataclass(frozen=True)
class Attempt:
    """A request that is sent once."""

    request: Request


@dataclass(frozen=True)
class Pause:
    """Some time in which nothing is done."""

    seconds: float


@dataclass(frozen=True)
class Listen:
    """The next change in a stream of events: True; False: the stream has ended, or cannot be had."""

    link: str


@dataclass(frozen=True)
class Item(Generic[T_co]):
    """One of the values that a call yields to who called."""

    value: T_co


Effect = Request | Attempt | Pause | Listen
Steps = Generator[Effect, Any, T]
"""A call that returns a value."""
Items = Generator[Effect | Item[T], Any, None]
"""A call that yields values."""


def sent(
    method: str,
    path: str,
    *,
    repeats: bool = False,
    patience_seconds: float | None = None,
    **given: Any,  # noqa: ANN401 - httpx's own arguments
) -> Steps[httpx.Response]:
    """Send a request, with what httpx takes for it; return the answer."""
    repeats = repeats or method in _REPEATABLE
    answer: httpx.Response = yield Request(method, path, given, repeats=repeats, patience_seconds=patience_seconds)
    return answer


def answered(method: str, path: str, *, repeats: bool = False, **given: Any) -> Steps[Any]:  # noqa: ANN401 - as above
    """Send a request; return the JSON object of the answer. Raises FarmError for something else."""
    answer = yield from sent(method, path, repeats=repeats, **given)
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise FarmError(f"{answer.url} answers, but not as a farm does; check FARM_URL.")
    return body


def loaded(method: str, path: str, *, repeats: bool = False, **given: Any) -> Steps[bytes]:  # noqa: ANN401 - as above
    """Send a request; return the bytes of the answer."""
    return (yield from sent(method, path, repeats=repeats, **given)).content


def done(method: str, path: str, **given: Any) -> Steps[None]:  # noqa: ANN401 - as above
    """Send a request whose answer says no more than that it was done."""
    yield from sent(method, path, **given)
