"""Makes a method of both clients from the steps of a call: returned by the one, awaited of the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from client.awaiting import Awaiting
from client.blocking import Blocking
from client.effects import Items, Steps

P = ParamSpec("P")
T = TypeVar("T")


class call(Generic[P, T]):  # noqa: N801 - a decorator
    """A method that returns a value."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self._steps = steps
        self.__doc__ = steps.__doc__

    @overload
    def __get__(self, client: None, kind: type) -> Self: ...
    @overload
    def __get__(self, client: Blocking, kind: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: Awaiting, kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Blocking | Awaiting | None, kind: type) -> object:
        """Return the method of a client."""
        if client is None:
            return self

        @wraps(self._steps)
        def run(*args: P.args, **given: P.kwargs) -> object:
            return client.run(self._steps(client, *args, **given))

        return run


class listing(Generic[P, T]):  # noqa: N801 - as above
    """A method that yields values."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Items[T]]) -> None:
        self._steps = steps
        self.__doc__ = steps.__doc__

    @overload
    def __get__(self, client: None, kind: type) -> Self: ...
    @overload
    def __get__(self, client: Blocking, kind: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: Awaiting, kind: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, client: Blocking | Awaiting | None, kind: type) -> object:
        """Return the method of a client."""
        if client is None:
            return self

        @wraps(self._steps)
        def run(*args: P.args, **given: P.kwargs) -> object:
            return client.items(self._steps(client, *args, **given))

        return run
