"""Requests on their way through the threads: how many wait, and what is left of those whose client leaves."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager, closing

import pytest

from api.http.later import SUPPORTED
from api.server import threads
from api.server.bodies import Body
from api.server.bridge import Bridge
from api.server.room import MEMORY_BYTES, Room, Spool
from api.server.threads import Threads
from shared.errors import Unavailable
from tests.support import loops

SIZE = 2**24


class Client:
    """Asks something, and may leave."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.sent: list[dict[str, object]] = []

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self) -> object:
        return self.sent[0]["status"]


@pytest.fixture
def room() -> Room:
    return Room(SIZE, SIZE)


@pytest.fixture
def begin(room):
    """Returns a function that has a bridge answer a client."""

    async def ask(bridge: Bridge, client: Client, size: int = 0):
        with closing(Spool(room, "", is_body=True)) as spool:
            spool.write(b"a" * size)
            await bridge.answer({}, Body(spool, size), client.receive, client.send)

    return ask


@asynccontextmanager
async def one_thread():
    made = Threads(1)
    yield made
    made.close()


def ok(start):
    start("200 OK", [])
    return [b"well"]


def is_free(room: Room) -> bool:
    try:
        room.take(SIZE, "all", is_body=False)
    except Unavailable:
        return False
    room.give(SIZE, "all", is_body=False)
    return True


async def soon(is_so):
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - threads tell
            await asyncio.sleep(0.001)


def test_request_whose_client_leaves_before_its_turn_is_dropped_with_its_body(room, begin):
    held, asked = threading.Event(), []

    def wsgi(environ, start):
        asked.append(environ)
        held.wait(10)
        return ok(start)

    async def story():
        async with one_thread() as pool:
            served = Bridge(wsgi, pool, room)
            first, second = Client(), Client()
            running = asyncio.ensure_future(begin(served, first))
            await soon(lambda: asked)
            waiting = asyncio.ensure_future(begin(served, second, 1000))
            await asyncio.sleep(0)
            second.left.set()
            await waiting
            assert is_free(room)
            held.set()
            await running
            assert first.status == 200
            assert not second.sent

    loops.run(story())
    assert len(asked) == 1


@pytest.mark.parametrize(("bound", "most", "size"), [("MOST_BEGUN", 0, 0), ("MOST_BEGUN_BYTES", 1500, 1000)])
def test_requests_past_the_bound_are_refused_without_a_thread(room, begin, monkeypatch, bound, most, size):  # noqa: PLR0917
    monkeypatch.setattr(threads, bound, most)
    held, asked = threading.Event(), []

    def wsgi(environ, start):
        asked.append(environ)
        held.wait(10)
        return ok(start)

    async def story():
        async with one_thread() as pool:
            served = Bridge(wsgi, pool, room)
            first, second, third = Client(), Client(), Client()
            running = asyncio.ensure_future(begin(served, first, size))
            await soon(lambda: asked)
            await begin(served, second, size)
            assert second.status == 503
            held.set()
            await running
            await begin(served, third, size)
            assert third.status == 200

    loops.run(story())


def test_few_large_bodies_are_worked_on_at_once_and_small_ones_beside_them(room, begin):
    held, large = threading.Event(), []

    def wsgi(environ, start):
        if environ.get("CONTENT_LENGTH"):
            large.append(environ)
            held.wait(10)
        return ok(start)

    async def story():
        pool = Threads(8)
        served, small = Bridge(wsgi, pool, room), Client()
        waiting = [asyncio.ensure_future(begin(served, Client(), MEMORY_BYTES + 1)) for _ in range(5)]
        await soon(lambda: len(large) == 2)
        await begin(served, small)
        assert small.status == 200
        assert len(large) == 2
        held.set()
        await asyncio.gather(*waiting)
        pool.close()

    loops.run(story())
    assert len(large) == 5


@pytest.mark.parametrize("leaves_in", [0, 1])
def test_client_that_leaves_while_a_part_is_made_leaves_nothing_behind(room, begin, leaves_in):
    going_on, in_part, closed = threading.Event(), threading.Event(), []

    class Parts:
        def __iter__(self):
            for number in range(3):
                if number == leaves_in:
                    in_part.set()
                    going_on.wait(10)
                yield b"a" * (2 * MEMORY_BYTES)

        def close(self):
            closed.append(going_on.is_set())

    def wsgi(_, start):
        start("200 OK", [])
        return Parts()

    async def story():
        async with one_thread() as pool:
            client = Client()
            answering = asyncio.ensure_future(begin(Bridge(wsgi, pool, room), client))
            await soon(in_part.is_set)
            client.left.set()
            await asyncio.sleep(0.01)
            assert not answering.done()
            going_on.set()
            await answering
            await soon(lambda: closed)
            assert is_free(room)

    loops.run(story())
    assert closed == [True]


def test_request_that_comes_when_the_threads_have_ended_is_told_so(room, begin):
    async def story():
        pool, client = Threads(1), Client()
        pool.close()
        await begin(Bridge(lambda _, start: ok(start), pool, room), client)
        assert client.status == 503

    loops.run(story())


def test_body_that_was_refused_is_not_asked_for(room):
    client = Client()

    async def story():
        async with one_thread() as pool:
            with closing(Spool(room, "", is_body=True)) as spool:
                refused = Body(spool, 5, is_refused=True)
                await Bridge(lambda _, start: ok(start), pool, room).answer({}, refused, None, client.send)

    loops.run(story())
    assert (b"connection", b"close") in client.sent[0]["headers"]


class Awaited:
    """Something that an answer waits for."""

    def __init__(self) -> None:
        self.has_happened, self.is_closed = asyncio.Event(), False

    async def happened(self) -> None:
        await self.has_happened.wait()

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def later():
    """Returns an application that answers when something has happened, and what that is; requests that came."""
    awaited, asked = Awaited(), []

    def wsgi(environ, start):
        assert environ[SUPPORTED]
        asked.append(environ)
        start("200 OK", [])
        return [b"well"] if awaited.has_happened.is_set() else awaited

    return wsgi, awaited, asked


def test_request_that_waits_holds_no_thread_and_no_body_and_is_asked_again(room, begin, later):
    wsgi, awaited, asked = later

    async def story():
        async with one_thread() as pool:
            served, waits, other = Bridge(wsgi, pool, room), Client(), Client()
            running = asyncio.ensure_future(begin(served, waits, 1000))
            await soon(lambda: asked and is_free(room))
            await begin(Bridge(lambda _, start: ok(start), pool, room), other)
            assert other.status == 200
            assert not waits.sent
            awaited.has_happened.set()
            await running
            assert (waits.status, waits.sent[-1]["body"], awaited.is_closed) == (200, b"well", True)

    loops.run(story())
    assert asked[0] is asked[1]


def test_what_a_request_waits_for_is_closed_when_its_client_leaves(room, begin, later):
    wsgi, awaited, asked = later

    async def story():
        async with one_thread() as pool:
            client = Client()
            running = asyncio.ensure_future(begin(Bridge(wsgi, pool, room), client))
            await soon(lambda: asked)
            client.left.set()
            await running
            await soon(lambda: awaited.is_closed)
            assert not client.sent

    loops.run(story())
    assert len(asked) == 1
