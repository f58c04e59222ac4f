"""Twelve at once on one job of 1,000 images: no deadlock, and the counts are right at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from threading import Barrier, BrokenBarrierError

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.event import listen
from sqlalchemy.orm import Session

from shared.accounts.scope import EVERYBODYS
from shared.db import sessions as database
from shared.db.owner_locks import OwnerLock, lock_owner
from shared.db.states import ImageState
from shared.db.tables import History
from shared.errors import Conflict
from shared.queue import dependencies, transitions
from shared.queue.history import Event
from tests.support.queueing import Farmhand
from tests.support.servers import fresh_database
from tests.support.waiting import until

IMAGES = 1000
OF_EACH = 4  # who cancel, who retry, who claim
ENDS = (Event.FINISHED, Event.FAILED, Event.CANCELLED, Event.RETRIED, Event.HANDED_BACK)
MOST_ROUNDS = 30  # a busy machine may start them in an order that leaves nothing to the others
ROUNDS = 3
CLAIMS = 8  # of each claimer and round

Move = Callable[[Farmhand, int], object]


class Errors:
    """The SQL errors that connections met, retried or not."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()

    def watch(self, engine: Engine) -> None:
        listen(engine, "handle_error", self._note)

    def _note(self, context) -> None:
        self.states[getattr(context.original_exception, "sqlstate", None) or "no answer"] += 1


@pytest.fixture
def database_url(home) -> Iterator[str]:
    """A new one: PostgreSQL has counted no deadlock in it yet, and nobody who looks after it is connected."""
    with fresh_database(home) as url:
        yield url


@pytest.fixture
def errors() -> Errors:
    return Errors()


@pytest.fixture
def hands(database_url, errors) -> Iterator[list[Farmhand]]:
    """Twelve, each with a connection of its own."""
    engines = [database.connect(database_url, pool_size=1) for _ in range(3 * OF_EACH)]
    for engine in engines:
        errors.watch(engine)
    yield [Farmhand(database.sessions(engine)) for engine in engines]
    for engine in engines:
        engine.dispose()


def at_once(hands: list[Farmhand], works: list[Callable[[Farmhand], object]]) -> None:
    """Have each hand do its work, all from one moment on; raise what any of them raised."""
    start = Barrier(len(hands))

    def run(hand: Farmhand, work: Callable[[Farmhand], object]) -> None:
        hand.run(lambda session: session.execute(text("SELECT 1")))  # connected by now
        start.wait(10)
        work(hand)

    with ThreadPoolExecutor(len(hands)) as pool:
        for done in [pool.submit(run, hand, work) for hand, work in zip(hands, works, strict=True)]:
            done.result(60)


def cancel(hand: Farmhand, job_id: int) -> None:
    with suppress(Conflict):  # all of it had ended
        hand.run(transitions.cancel, EVERYBODYS, job_id)


def retry(hand: Farmhand, job_id: int) -> None:
    with suppress(Conflict):  # no image had failed or was cancelled
        hand.run(transitions.retry, EVERYBODYS, job_id)


def carry(hand: Farmhand, job_id: int) -> None:
    """Claim some; finish, fail, hand back and lose them in turn."""
    worker = hand.worker()
    for turn in range(CLAIMS):
        ours = worker.claim()
        if ours is None:
            continue
        if turn % 4 == 0:
            hand.run(transitions.fail, ours, "broken")
        elif turn % 4 == 1:
            hand.run(transitions.hand_back, worker.id, {ours.image_id: ours.attempt})
        elif turn % 4 == 2:
            hand.finish(ours)
    worker.mark_dead()


def deadlocks(sessions: database.Sessions) -> int:
    """What PostgreSQL counted in this database, once the others' connections, which tell it, are closed."""
    others = text("""
        SELECT count(*)
        FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend' AND pid != pg_backend_pid()
    """)
    counted = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")

    def asked(statement) -> int:
        with sessions.begin() as session:
            return session.scalar(statement)

    until(lambda: asked(others) == 0, what="the end of all other connections")
    return asked(counted)


def happened(sessions: database.Sessions, what: Event) -> Counter[int]:
    """Return how often it happened to each image."""
    with sessions() as session:
        return Counter(session.scalars(select(History.image_id).where(History.event == what)))


def test_twelve_bulk_moves_at_once_deadlock_never_and_the_counts_add_up(hands, errors, sessions, job_factory):
    job = job_factory(count=IMAGES)
    works = [lambda hand, move=move: move(hand, job.id) for move in (cancel, retry, carry) for _ in range(OF_EACH)]

    for turn in count(1):
        # If the cancels always are the first, nothing else has an image to end: every other round is without them.
        first = 0 if turn % 2 else OF_EACH
        at_once(hands[first:], works[first:])

        mine = Farmhand(sessions)
        images, found = mine.images(job.id), mine.job(job.id)
        states = Counter(ImageState(image.state) for image in images)
        assert states[ImageState.RUNNING] == 0
        assert found.unfinished == states[ImageState.QUEUED]
        assert (found.state == "open") == bool(found.unfinished)
        assert happened(sessions, Event.FINISHED) == {i.id: 1 for i in images if i.state == ImageState.SUCCEEDED}
        assert happened(sessions, Event.CLAIMED) == {i.id: i.attempt for i in images if i.attempt}
        if turn >= ROUNDS and all(happened(sessions, event) for event in ENDS):
            break
        assert turn < MOST_ROUNDS, "of these ends one never comes: the test proves nothing"

    assert not errors.states
    for hand in hands:
        hand.sessions.kw["bind"].dispose()
    assert deadlocks(sessions) == 0


def test_retries_beside_a_cancel_wait_for_their_owners_turn_in_no_circle(hands, errors, sessions, job_factory):
    """One retry finds nothing cancelled yet, the other does; meanwhile another job of the owner is being changed."""
    before = job_factory(owner="ann")
    job = job_factory(owner="ann", count=2, scheduling={"after": (before.id,), "on": "success"})
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    def count_waiting() -> int:
        with sessions() as session:
            return session.scalar(waiting)

    def again(hand: Farmhand, job_id: int) -> None:
        with suppress(Conflict):  # it found nothing to retry
            hand.run(dependencies.retry, EVERYBODYS, job_id)

    with ThreadPoolExecutor(3) as pool, hands[0].sessions.begin() as session:
        lock_owner(session, OwnerLock.DEPENDENCIES, "ann")
        for hand, move in zip(hands[1:4], (again, cancel, again), strict=True):
            so_far, done = count_waiting(), pool.submit(move, hand, job.id)
            until(lambda done=done, so_far=so_far: done.done() or count_waiting() > so_far, what=str(move))
    assert not errors.states
    assert [image.state for image in Farmhand(sessions).images(job.id)] == ["held", "held"]


def test_a_deadlock_would_be_seen(hands, errors, sessions, job_factory):
    """Two who lock a job's images from either end: one of them is chosen as the victim, and both counts say so."""
    job = job_factory(count=2)
    first, second = (image.id for image in Farmhand(sessions).images(job.id))
    met = Barrier(2)
    lock = text("SELECT FROM images WHERE id = :id FOR UPDATE")

    def crossing(*ids: int) -> Callable[[Farmhand], object]:
        def work(hand: Farmhand) -> None:
            def move(session: Session) -> None:
                session.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
                session.execute(lock, {"id": ids[0]})
                with suppress(BrokenBarrierError):  # who comes again meets nobody
                    met.wait(1)
                session.execute(lock, {"id": ids[1]})

            hand.run(move)

        return work

    at_once(hands[:2], [crossing(first, second), crossing(second, first)])
    assert errors.states == {"40P01": 1}
    for hand in hands:
        hand.sessions.kw["bind"].dispose()
    assert deadlocks(sessions) == 1
