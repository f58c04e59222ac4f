"""A job's events as a stream (server-sent events): changes as they happen, and its end.

Events from Redis are hints and may be lost. Therefore a stream also polls PostgreSQL, and without Redis it uses only
that. For all streams of a process, Redis has one subscription, and no stream holds a thread.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import Final

from api.services import Services
from api.use_cases import jobs
from shared.accounts.principal import Principal
from shared.db.sessions import transact
from shared.db.states import FINAL
from shared.errors import Unavailable
from shared.maintenance import outbox
from shared.maintenance.outbox import Place
from shared.messaging.events import JobChanged, JobEnded, PreviewChanged, Progress, Received, Subscription

HEARTBEAT_SECONDS: Final = 5  # a client that left silently is found by writing
LOOK_SECONDS: Final = 3
_TURN_SECONDS: Final = 0.5  # how soon a stopping server's streams end
_ENDS_SECONDS: Final = 60.0
_FIRST_ID: Final = "0-0"
_ID: Final = re.compile(r"\d{1,19}-\d{1,19}")


def event_id(header: str | None) -> str | None:
    """Return the id of a Last-Event-ID header; None if it is not one of this farm."""
    return header if header and _ID.fullmatch(header) else None


class Held:
    """A stream that holds one of its owner's places until it is closed."""

    def __init__(self, services: Services, who: Principal) -> None:
        self._services = services
        self._who = who
        self._held = ExitStack()

    def close(self) -> None:
        """Give the place back. May be called again."""
        self._held.close()

    def _may_go_on(self) -> bool:
        """False once the server stops, or the key of who follows has been revoked."""
        return not self._services.stopping.is_set() and self._services.still_knows(self._who)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield what is sent."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        """Yield the same to a server of threads, such as a test's."""
        return in_thread(aiter(self))


class Stream(Held):
    """A job's state, then its events, those after the id `after` first, until it ends or the server stops.

    It holds one of the owner's places until it is closed. Made in a thread, since it asks servers; sent from an event
    loop. Raises NotFound, Unavailable.
    """

    def __init__(self, services: Services, who: Principal, job_id: int, after: str | None) -> None:
        super().__init__(services, who)
        with ExitStack() as held:
            if not services.streams.take(who.owner):
                raise Unavailable("Too many event streams are open: poll the job instead, or try again.")
            held.callback(services.streams.give, who.owner)
            self._subscription = held.enter_context(services.events.subscribe(job_id))
            # after subscribing: nothing falls between the two
            self._job = JobChanged(job_id, jobs.state(services, who, job_id))
            self._missed = services.events.replay(job_id, after) if after else []
            self._last_id = after or _FIRST_ID
            self._held = held.pop_all()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._written("job")
        for received in self._missed:
            yield self._sent(received)
        with suppress(Unavailable, _Deleted):  # the client comes back and gets the error then
            async for part in self._follow():
                yield part
        if self._job.state in FINAL:
            yield self._written("end")

    async def _follow(self) -> AsyncIterator[bytes]:
        looked = wrote = time.monotonic()
        while self._job.state not in FINAL and self._may_go_on():
            received = await next_event(self._subscription, _TURN_SECONDS)
            now = time.monotonic()
            if received:
                wrote = now
                yield self._sent(received)
            is_news = received is not None and not isinstance(received.event, (Progress, PreviewChanged))
            if is_news or now - looked > LOOK_SECONDS:
                before, looked = self._job, now
                await self._look()
                if self._job != before:
                    yield self._written("job")
            if now - wrote > HEARTBEAT_SECONDS:
                wrote = now
                yield b": still here\n\n"

    async def _look(self) -> None:
        state = await asyncio.wrap_future(self._services.state_lookups.state(self._job.job))
        if state is None:
            raise _Deleted
        self._job = JobChanged(self._job.job, state)

    def _sent(self, received: Received) -> bytes:
        self._last_id = received.id or self._last_id
        return _written(received.event.kind, received.id, asdict(received.event))

    def _written(self, kind: str) -> bytes:
        return _written(kind, self._last_id, asdict(self._job))


class Ends(Held):
    """The ends of an owner's jobs: those after a place of the outbox first, then each as it comes.

    It lasts a minute, after which a client comes back with the id of the last one: what Redis lost is read then.
    Raises Unavailable.
    """

    def __init__(self, services: Services, who: Principal, after: Place | None) -> None:
        super().__init__(services, who)
        with ExitStack() as held:
            if not services.streams.take(who.owner):
                raise Unavailable("Too many event streams are open: list the jobs instead, or try again.")
            held.callback(services.streams.give, who.owner)
            self._subscription = held.enter_context(services.events.subscribe(who.owner))
            missed = transact(services.sessions, lambda session: outbox.ends(session, who.own, after))
            self._missed, self._place = missed.events, missed.place
            self._first = missed.place if after is None else after
            self._held = held.pop_all()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield _written("hello", str(self._first), {})
        told = {event.id for event in self._missed}
        for event in self._missed:
            is_last = event is self._missed[-1]
            place = self._place if is_last else self._first.past(event.id)  # if it breaks off, the others come again
            yield _written("ended", str(place), {"job": event.job_id, "state": event.state})
        began = wrote = time.monotonic()
        while self._may_go_on() and time.monotonic() - began < _ENDS_SECONDS:
            received = await next_event(self._subscription, _TURN_SECONDS)
            news = received.event if received else None
            if isinstance(news, JobEnded) and news.id not in told:
                told.add(news.id)
                wrote = time.monotonic()
                yield _written("ended", str(news.id), {"job": news.job, "state": news.state})
            elif time.monotonic() - wrote > HEARTBEAT_SECONDS:
                wrote = time.monotonic()
                yield b": still here\n\n"


class _Deleted(Exception):
    """The job was deleted."""


def in_thread(parts: AsyncIterator[bytes]) -> Iterator[bytes]:
    """Yield the parts of a stream to a server of threads."""
    runner = asyncio.Runner()
    with ThreadPoolExecutor(1, "stream") as thread:  # in the caller's a loop may run already
        try:
            while part := thread.submit(lambda: runner.run(_next(parts))).result():
                yield part
        finally:
            thread.submit(runner.close)


async def next_event(subscription: Subscription, seconds: float) -> Received | None:
    """Return the next event; None when none comes in `seconds`."""
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    with subscription.notifying(lambda: loop.call_soon_threadsafe(came.set)):
        if received := subscription.get(0):
            return received
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await came.wait()
    return subscription.get(0)


async def _next(parts: AsyncIterator[bytes]) -> bytes:
    return await anext(parts, b"")


def _written(kind: str, identifier: str, data: dict[str, object]) -> bytes:
    id_line = f"id: {identifier}\n" if identifier else ""
    return f"event: {kind}\n{id_line}data: {json.dumps(data)}\n\n".encode()
