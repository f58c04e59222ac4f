"""The threads that answer requests, and the requests that wait for one: few enough of them, and of their bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Final, TypeVar

from api.server.room import MEMORY_BYTES
from shared.errors import Unavailable

T = TypeVar("T")

MOST_BEGUN: Final = 512  # requests that are answered or wait for that
MOST_BEGUN_BYTES: Final = 2**26  # that the bodies of those keep in memory
_LARGE_AT_ONCE: Final = 2  # an application keeps some copies of a large body while it reads it


class Threads:
    """Runs work in `number` threads for coroutines of one event loop. Cancelling a task drops its waiting work."""

    def __init__(self, number: int) -> None:
        self._pool = ThreadPoolExecutor(number, "request")
        self._free = asyncio.Semaphore(number)  # so that what waits does so here, where it can leave
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._most_begun = MOST_BEGUN + number
        self._begun = self._begun_bytes = 0
        self._is_closed = False

    async def begin(self, task: Callable[[], T], size: int) -> T:
        """Return what `task` on a request with a body of `size` bytes returns. Raises Unavailable: too many wait."""
        in_memory = min(size, MEMORY_BYTES)
        if self._begun >= self._most_begun or self._begun_bytes + in_memory > MOST_BEGUN_BYTES:
            raise Unavailable("Too many requests wait to be answered: try again later.")
        self._begun += 1
        self._begun_bytes += in_memory
        try:
            async with self._large if size > MEMORY_BYTES else nullcontext():
                return await self.run(task)
        finally:
            self._begun -= 1
            self._begun_bytes -= in_memory

    async def run(self, task: Callable[[], T]) -> T:
        """Return what `task` returns; cancelled, it ends after a task that has begun. Raises Unavailable at the end."""
        async with self._free:
            done = asyncio.wrap_future(self._submit(task))
            try:
                return await asyncio.shield(done)
            except asyncio.CancelledError:
                if not self._is_closed:
                    await asyncio.wait({done})  # what it works on is in use until then
                raise

    def _submit(self, task: Callable[[], T]) -> Future[T]:
        try:
            return self._pool.submit(task)
        except RuntimeError as error:
            raise Unavailable("The farm is stopping: try again later.") from error

    def run_soon(self, task: Callable[[], object]) -> None:
        """Run `task` without waiting."""
        with suppress(RuntimeError):  # at the end there is nothing to keep in order
            self._pool.submit(task)

    def close(self) -> None:
        """Begin nothing more, and wait for nothing that has begun."""
        self._is_closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
