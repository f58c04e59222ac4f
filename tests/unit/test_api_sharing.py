"""What requests share: places, room for bodies, a pace, looks at jobs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from api.looks import Looks
from api.places import Places
from api.server.pace import LEAST_BYTES, Pace
from api.server.room import MEMORY_BYTES, Room, Spool
from shared.errors import Unavailable
from shared.states import ImageState
from tests import loops


def test_one_owner_gets_a_share_and_the_others_the_rest():
    places = Places(4, 2)
    assert [places.take("ann") for _ in range(3)] == [True, True, False]
    assert [places.take("bob") for _ in range(2)] == [True, True]
    assert not places.take("cid")
    places.give("ann")
    assert places.take("cid")


def test_few_bytes_take_no_room():
    room = Room(0)
    spool = Spool(room)
    spool.write(b"a" * MEMORY_BYTES)
    with pytest.raises(Unavailable):
        spool.write(b"a")
    spool.close()


def test_room_is_for_all_and_given_back():
    room = Room(3 * MEMORY_BYTES)
    first, second = Spool(room), Spool(room)
    first.write(b"a" * 2 * MEMORY_BYTES)
    with pytest.raises(Unavailable, match="try again later"):
        second.write(b"a" * 2 * MEMORY_BYTES)
    first.close()
    first.close()
    second.write(b"a" * 2 * MEMORY_BYTES)
    second.file.seek(0)
    assert second.file.read() == b"a" * 2 * MEMORY_BYTES
    second.close()
    room.take(3 * MEMORY_BYTES)


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

    looks = Looks(look)
    first = looks.state(1)
    while not asked:
        pass
    rest = [looks.state(job) for job in (1, 2, 3, 2)]
    may_look.set()
    assert first.result(10) is ImageState.RUNNING
    assert [future.result(10) for future in rest] == [ImageState.RUNNING, ImageState.QUEUED, None, ImageState.QUEUED]
    assert asked == [[1], [1, 2, 3]]
    looks.close()


def test_who_leaves_ends_the_look_of_nobody_else():
    may_look = threading.Event()

    def look(_jobs):
        may_look.wait(10)
        return {1: ImageState.RUNNING}

    async def ask(looks):
        leaving, staying = (asyncio.ensure_future(asyncio.wrap_future(looks.state(1))) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait({leaving})
        may_look.set()
        assert await asyncio.wait_for(staying, 10) is ImageState.RUNNING
        assert await asyncio.wait_for(asyncio.wrap_future(looks.state(1)), 10) is ImageState.RUNNING

    looks = Looks(look)
    loops.run(ask(looks))
    looks.close()


def test_look_that_fails_tells_all_who_asked_and_the_next_one_looks_again():
    answers = iter([Unavailable("away"), {1: ImageState.QUEUED}])

    def look(_jobs):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    looks = Looks(look)
    with pytest.raises(Unavailable):
        looks.state(1).result(10)
    assert looks.state(1).result(10) is ImageState.QUEUED
    looks.close()
