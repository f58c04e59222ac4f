"""One picture beside another owner's thousands: the next free slot starts it, or the one after.

With workers as they run. The slots are filled with pictures that wait for a gate each, so that slots come free when the
test says so; what was claimed in which order is read from history.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from redis import Redis
from sqlalchemy import select

from shared.db.sessions import transact
from shared.db.states import ImageState
from shared.db.tables import History, Image
from shared.messaging.tickets import Tickets
from shared.queue import queries, snapshot
from shared.queue.history import Event
from tests.support.waiting import until
from tests.support.workers import ready, started, states

CARDS, SLOTS = 2, 2
BACKLOG = 5000


@pytest.fixture
def redis(settings):
    with Redis.from_url(settings.redis) as client:
        yield client


@pytest.fixture
def tickets(settings, farm_id):
    tickets = Tickets(settings.redis, farm_id)
    yield tickets
    tickets.close()


@pytest.fixture
def full_farm(environ, sessions, tickets, job_factory, tmp_path):
    """Two workers whose slots are full of ann's pictures, with 5,000 more of hers to come; returns what ends each."""
    gates = [tmp_path / f"gate-{number}" for number in range(CARDS * SLOTS)]
    with ExitStack() as stack:
        for card in range(CARDS):
            stack.enter_context(started(environ, "--card", f"cpu:{card}", "--slots", str(SLOTS)))
        until(lambda: ready(sessions, CARDS), what="the workers")
        running = [job_factory(owner="ann", prompt=f"wait for {gate}") for gate in gates]
        tickets.publish("default", len(gates))
        until(lambda: [states(sessions, job.id) for job in running] == [["running"]] * len(gates), what="full slots")
        job_factory(owner="ann", prompt=f"wait for {tmp_path / 'never'}", count=BACKLOG)
        tickets.publish("default", BACKLOG)
        yield gates


def claims_between(sessions, job) -> list[str]:
    """Return the owners of the claims after `job` was submitted and up to its own, in their order."""
    with sessions() as session:
        submitted = session.scalar(select(History.id).where(History.job_id == job.id, History.event == Event.SUBMITTED))
        claims = select(History.job_id, Image.owner).join(Image, Image.id == History.image_id)
        claims = claims.where(History.event == Event.CLAIMED, History.id > submitted).order_by(History.id)
        rows = session.execute(claims).all()
    order = [job_id for job_id, _ in rows]
    return [owner for _, owner in rows[: order.index(job.id)]]


@pytest.fixture
def started_among(sessions, tickets, job_factory, redis, farm_id):
    """Submits one picture of a newcomer, frees some slots; returns who was claimed for before the newcomer was."""

    def among(owner, freed):
        until(lambda: not redis.exists(farm_id.key(snapshot.TURN)), what="a moment in which nobody looked at the queue")
        single = job_factory(owner=owner)
        tickets.publish("default", 1)
        for gate in freed:
            gate.touch()
        until(lambda: states(sessions, single.id) == ["succeeded"], what=f"the picture of {owner}")
        until(lambda: transact(sessions, queries.counts)[ImageState.RUNNING] == CARDS * SLOTS, what="full slots again")
        return claims_between(sessions, single)

    return among


def test_single_picture_beside_5000_is_started_by_the_next_free_slot_or_the_one_after(full_farm, started_among):
    first, second, *two_at_once = full_farm
    assert started_among("bob", [first]) in ([], ["ann"])
    assert started_among("eve", [second]) in ([], ["ann"])
    assert started_among("joe", two_at_once) in ([], ["ann"])
