"""Quotas that requests share: places, room for bodies, a pace, looks at jobs."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from api.quotas import Places
from api.server.pace import LEAST_BYTES, Pace
from api.server.room import MEMORY_BYTES, Room, Spool
from api.shared_lookup import SharedLookup
from api.state_lookups import StateLookups
from shared.db.states import ImageState
from shared.errors import Unavailable
from tests.support import loops
from tests.support.waiting import until

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"


def test_one_owner_gets_a_share_and_the_others_the_rest():
    places = Places(4, lambda: True)
    assert [places.take("ann") for _ in range(3)] == [True, True, False]
    assert [places.take("bob") for _ in range(2)] == [True, True]
    assert not places.take("cid")
    places.give("ann")
    assert places.take("cid")


def test_few_bytes_of_an_answer_take_no_room():
    spool = Spool(Room(0, 0), HERE)
    spool.write(b"a" * MEMORY_BYTES)
    with pytest.raises(Unavailable):
        spool.write(b"a")
    spool.close()


def test_every_byte_of_a_body_takes_room():
    room = Room(8, 8)
    with closing(Spool(room, HERE, is_body=True)) as first, closing(Spool(room, ELSEWHERE, is_body=True)) as second:
        first.write(b"abc")
        with pytest.raises(Unavailable, match="try again later"):
            second.write(b"abcd")
        first.close()
        second.write(b"abcd")


def test_room_is_for_all_and_given_back():
    room = Room(3 * MEMORY_BYTES, 3 * MEMORY_BYTES)
    first, second = Spool(room, HERE), Spool(room, ELSEWHERE)
    first.write(b"a" * 2 * MEMORY_BYTES)
    with pytest.raises(Unavailable, match="try again later"):
        second.write(b"a" * 2 * MEMORY_BYTES)
    first.close()
    first.close()
    second.write(b"a" * 2 * MEMORY_BYTES)
    second.file.seek(0)
    assert second.file.read() == b"a" * 2 * MEMORY_BYTES
    second.close()
    room.take(3 * MEMORY_BYTES, HERE, is_body=False)


def test_one_address_leaves_room_for_the_others_and_bodies_for_answers():
    room = Room(8, 4)
    room.take(4, HERE, is_body=True)
    with pytest.raises(Unavailable):
        room.take(1, HERE, is_body=False)
    room.take(2, ELSEWHERE, is_body=True)
    with pytest.raises(Unavailable):
        room.take(1, ELSEWHERE, is_body=True)
    room.take(2, ELSEWHERE, is_body=False)
    room.give(4, HERE, is_body=True)
    room.take(2, HERE, is_body=True)


def test_who_was_made_to_wait_has_a_whole_stretch_again():
    pace = Pace(began=100, stall=10, total=100)
    pace.moved(5, 101)
    pace.resume(115)
    assert pace.due == 125


def test_pace_is_kept_by_enough_bytes_only():
    pace = Pace(began=100, stall=10, total=25)
    pace.moved(LEAST_BYTES - 1, 109)
    assert pace.due == 110
    pace.moved(1, 109)
    assert pace.due == 119
    pace.moved(LEAST_BYTES, 118)
    assert pace.due == 125  # the whole of it


def test_looks_that_wait_are_one_question():
    asked, may_look = [], threading.Event()

    def look(jobs):
        asked.append(sorted(jobs))
        may_look.wait(10)
        return {1: ImageState.RUNNING, 2: ImageState.QUEUED}

    lookups = StateLookups(look)
    first = lookups.state(1)
    until(lambda: asked)
    rest = [lookups.state(job) for job in (1, 2, 3, 2)]
    may_look.set()
    assert first.result(10) is ImageState.RUNNING
    assert [future.result(10) for future in rest] == [ImageState.RUNNING, ImageState.QUEUED, None, ImageState.QUEUED]
    assert asked == [[1], [1, 2, 3]]
    lookups.close()


def test_questions_of_threads_that_come_during_one_are_the_next_one():
    asked, begun, may_look = [], threading.Event(), threading.Event()

    def look(numbers):
        asked.append(sorted(numbers))
        begun.set()
        may_look.wait(10)
        return {1: "one", 2: "two"}

    lookup = SharedLookup(look)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(lookup.ask, 1)
        begun.wait(10)
        rest = [threads.submit(lookup.ask, number) for number in (1, 2, 3)]
        until(lambda: len(lookup._next) == 3)
        may_look.set()
        assert [future.result(10) for future in (first, *rest)] == ["one", "one", "two", None]
    assert asked == [[1], [1, 2, 3]]


def test_question_that_fails_fails_for_all_who_asked_it_and_for_nobody_after():
    asked, begun, may_look = [], threading.Event(), threading.Event()

    def look(numbers):
        asked.append(sorted(numbers))
        begun.set()
        may_look.wait(10)
        if len(asked) == 2:
            raise Unavailable("away")
        return {1: "one", 2: "two"}

    lookup = SharedLookup(look)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(lookup.ask, 1)
        begun.wait(10)
        rest = [threads.submit(lookup.ask, number) for number in (1, 2)]
        until(lambda: len(lookup._next) == 2)
        may_look.set()
        assert [type(future.exception(10)) for future in (first, *rest)] == [type(None), Unavailable, Unavailable]
    assert asked == [[1], [1, 2]]
    assert lookup.ask(1) == "one"


def test_who_leaves_ends_the_look_of_nobody_else():
    may_look = threading.Event()

    def look(_jobs):
        may_look.wait(10)
        return {1: ImageState.RUNNING}

    async def ask(lookups):
        leaving, staying = (asyncio.ensure_future(asyncio.wrap_future(lookups.state(1))) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait({leaving})
        may_look.set()
        assert await asyncio.wait_for(staying, 10) is ImageState.RUNNING
        assert await asyncio.wait_for(asyncio.wrap_future(lookups.state(1)), 10) is ImageState.RUNNING

    lookups = StateLookups(look)
    loops.run(ask(lookups))
    lookups.close()


def test_look_that_fails_tells_all_who_asked_and_the_next_one_looks_again():
    answers = iter([Unavailable("away"), {1: ImageState.QUEUED}])

    def look(_jobs):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    lookups = StateLookups(look)
    with pytest.raises(Unavailable):
        lookups.state(1).result(10)
    assert lookups.state(1).result(10) is ImageState.QUEUED
    lookups.close()
