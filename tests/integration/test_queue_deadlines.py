"""Deadlines and held images: what may be claimed, what a turn does, and who wins where two come at once."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from pydantic import ValidationError
from sqlalchemy import select, text, update

from shared.accounts.scope import EVERYBODYS
from shared.db import sessions as database
from shared.db.states import ImageState
from shared.db.tables import History, Image
from shared.errors import Conflict, NotFound
from shared.params.render import RenderParams
from shared.params.scheduling import Scheduling, utc_words
from shared.queue import deadlines, policy, snapshot, transitions
from shared.queue.claim import _CLAIM, claim
from shared.queue.deadlines import Due
from shared.queue.holds import hold, release
from shared.queue.submit import submit as submit_job
from tests.integration.test_queue_races import together, wait_for_a_lock
from tests.support.admissions import admission
from tests.support.queueing import Farmhand
from tests.support.workers import made
from worker.dispatch.heartbeat import Heartbeat

HOUR = timedelta(hours=1)
PARAMS = RenderParams(prompt="sea", checkpoint="demo [cccccccccc]", width=64, height=64, seed=7)


def later(hours: float = 1) -> datetime:
    return datetime.now(UTC) + hours * HOUR


@pytest.fixture
def hand(sessions: database.Sessions) -> Farmhand:
    return Farmhand(sessions)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def submit(job_factory):
    """Submits a job with this scheduling."""

    def make(count: int = 1, owner: str = "ann", **scheduling):
        return job_factory(count=count, owner=owner, scheduling=scheduling)

    return make


@pytest.fixture
def put(sessions):
    """Changes columns of the images of a job: as if time had passed."""

    def change(job_id: int, **columns) -> None:
        with sessions.begin() as session:
            session.execute(update(Image).where(Image.job_id == job_id).values(columns))

    return change


def states(hand: Farmhand, job_id: int) -> list[str]:
    return [image.state for image in hand.images(job_id)]


def turn(hand: Farmhand) -> Due:
    return hand.run(deadlines.move_due)


# Deadlines


def test_an_image_is_claimed_before_its_deadline(hand, submit):
    submit(expires_at=later())

    assert hand.worker().claim() is not None


def test_an_image_is_never_claimed_after_its_deadline_even_if_nobody_cancelled_it(hand, submit, put):
    late = submit(expires_at=later())
    next_one = submit()
    put(late.id, expires_at=later(-1))

    assert hand.worker().claim().job_id == next_one.id
    assert states(hand, late.id) == ["queued"]


@pytest.mark.parametrize("scheduling", [{}, {"hold": True}])
def test_a_turn_cancels_what_missed_its_deadline_and_ends_the_job_with_the_reason(
    hand, submit, put, sessions, scheduling
):
    job = submit(count=2, expires_at=later(), **scheduling)
    put(job.id, expires_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC))

    done = turn(hand)

    assert (done.cancelled, done.queued, done.jobs) == (2, {}, {job.id: ImageState.CANCELLED})
    assert {image.reason for image in hand.images(job.id)} == {"not started by its deadline, 2026-01-02 03:04 UTC"}
    assert (hand.job(job.id).state, hand.job(job.id).unfinished) == ("cancelled", 0)
    with sessions() as session:
        last = session.scalars(select(History).order_by(History.id.desc())).first()
    assert (last.event, last.detail) == ("cancelled", "not started by its deadline")


def test_a_turn_leaves_deadlines_to_come_and_what_runs(hand, submit, put):
    runs, waits = submit(expires_at=later()), submit(expires_at=later())
    assert hand.worker().claim().job_id == runs.id
    put(runs.id, expires_at=later(-1))

    assert turn(hand).cancelled == 0
    assert states(hand, runs.id) + states(hand, waits.id) == ["running", "queued"]


def test_what_started_in_time_and_came_back_may_start_again_after_its_deadline(hand, submit, put):
    job = submit(expires_at=later())
    worker = hand.worker()
    first = worker.claim()
    worker.mark_dead(crashed=True)
    put(job.id, expires_at=datetime.now(UTC))

    assert turn(hand).cancelled == 0
    assert hand.worker().claim().attempt == first.attempt + 1


def test_retry_after_the_deadline_takes_it_away(hand, submit, put):
    job = submit(expires_at=later())
    put(job.id, expires_at=later(-1))
    turn(hand)

    hand.run(transitions.retry, EVERYBODYS, job.id)

    assert hand.images(job.id)[0].expires_at is None
    assert hand.worker().claim() is not None


def test_retry_before_the_deadline_keeps_it_and_it_counts_anew(hand, submit, put):
    job = submit(expires_at=later())
    hand.run(transitions.fail, hand.worker().claim(), "broken")
    hand.run(transitions.retry, EVERYBODYS, job.id)
    assert hand.images(job.id)[0].expires_at is not None

    put(job.id, expires_at=later(-1))

    assert hand.worker().claim() is None
    assert turn(hand).cancelled == 1


# Held


@pytest.mark.parametrize(
    ("scheduling", "reason"),
    [
        ({"hold": True}, "held by ann"),
        ({"hold_until": datetime(2100, 1, 2, 3, 4, tzinfo=UTC)}, "held until 2100-01-02 03:04 UTC"),
        ({"hold_behind": 4711}, "held behind job 4711"),
    ],
)
def test_a_held_job_says_why_and_is_not_claimed(hand, submit, scheduling, reason):
    job = submit(count=2, **scheduling)

    assert {(image.state, image.reason) for image in hand.images(job.id)} == {("held", reason)}
    assert hand.worker().claim() is None


def test_a_turn_lets_go_what_was_held_until_now(hand, submit, put):
    past, to_come, by_hand = submit(count=2, hold_until=later()), submit(hold_until=later()), submit(hold=True)
    put(past.id, held_until=later(-1))

    done = turn(hand)

    assert (done.cancelled, done.queued, done.jobs) == (0, {"default": 2}, {past.id: ImageState.QUEUED})
    assert states(hand, to_come.id) + states(hand, by_hand.id) == ["held", "held"]
    image = hand.images(past.id)[0]
    assert (image.state, image.reason, image.held_until) == ("queued", None, None)
    assert image.queued_at > past.created_at  # it has waited since now


def end(hand: Farmhand, job_id: int, how: str) -> None:
    if how == "deleted":
        hand.run(transitions.delete, EVERYBODYS, job_id)
    elif how == "cancelled":
        hand.run(transitions.cancel, EVERYBODYS, job_id)
    else:
        ours = hand.worker().claim()
        hand.finish(ours) if how == "succeeded" else hand.run(transitions.fail, ours, "broken")


@pytest.mark.parametrize("how", ["succeeded", "failed", "cancelled", "deleted"])
def test_a_turn_lets_go_what_was_held_behind_a_job_however_that_ended(hand, submit, how):
    first, open_one = submit(), submit(hold=True)
    behind, others = submit(count=2, hold_behind=first.id), submit(hold_behind=open_one.id)
    assert turn(hand).queued == {}

    end(hand, first.id, how)

    assert turn(hand).queued == {"default": 2}
    assert states(hand, behind.id) + states(hand, others.id) == ["queued", "queued", "held"]
    assert hand.images(behind.id)[0].held_behind is None


def test_jobs_held_behind_each_other_go_one_after_the_other(hand, submit):
    jobs = [submit()]
    for _ in range(3):
        jobs.append(submit(hold_behind=jobs[-1].id))
    worker = hand.worker()

    served = []
    for _ in jobs:
        ours = worker.claim()
        assert worker.claim() is None
        served.append(ours.job_id)
        hand.finish(ours)
        turn(hand)

    assert served == [job.id for job in jobs]


def test_hold_takes_queued_images_and_release_queues_them(hand, submit):
    job = submit(count=3)
    ours = hand.worker().claim()

    assert hand.run(hold, EVERYBODYS, job.id, by="bob") == 2
    assert states(hand, job.id) == ["running", "held", "held"]
    assert hand.images(job.id)[1].reason == "held by bob"
    assert hand.worker().claim() is None
    hand.finish(ours)
    assert hand.run(release, EVERYBODYS, job.id, by="ann") == 2
    assert states(hand, job.id) == ["succeeded", "queued", "queued"]
    assert hand.images(job.id)[1].reason is None


@pytest.mark.parametrize("scheduling", [{"hold": True}, {"hold_until": later()}, {"hold_behind": 1}])
def test_release_queues_images_held_for_any_reason(hand, submit, scheduling):
    job = submit(**scheduling)

    hand.run(release, EVERYBODYS, job.id, by="ann")

    image = hand.images(job.id)[0]
    assert (image.state, image.held_until, image.held_behind) == ("queued", None, None)


def test_hold_and_release_of_what_is_in_another_state_name_it(hand, submit):
    job = submit()
    with pytest.raises(Conflict, match=f"Job {job.id} cannot be released: it is queued"):
        hand.run(release, EVERYBODYS, job.id, by="ann")
    hand.run(hold, EVERYBODYS, job.id, by="ann")
    with pytest.raises(Conflict, match=f"Job {job.id} cannot be held: it is held"):
        hand.run(hold, EVERYBODYS, job.id, by="ann")
    with pytest.raises(NotFound, match="There is no job 4711"):
        hand.run(hold, EVERYBODYS, 4711, by="ann")


def test_cancel_and_retry_of_a_held_job_queue_it_for_good(hand, submit):
    job = submit(hold_until=later())
    hand.run(transitions.cancel, EVERYBODYS, job.id)
    hand.run(transitions.retry, EVERYBODYS, job.id)

    image = hand.images(job.id)[0]
    assert (image.state, image.held_until, image.reason) == ("queued", None, None)


def test_history_tells_who_held_and_released(hand, submit, sessions):
    job = submit()
    hand.run(hold, EVERYBODYS, job.id, by="ann")
    hand.run(release, EVERYBODYS, job.id, by="bob")

    with sessions() as session:
        lines = session.scalars(select(History).where(History.job_id == job.id).order_by(History.id)).all()
    assert [(line.event, line.detail) for line in lines[1:]] == [("held", "held by ann"), ("released", "by bob")]


# Bounds and keys


def test_a_turn_is_bounded_and_says_that_there_is_more(hand, submit, put, monkeypatch):
    monkeypatch.setattr(deadlines, "MOST", 2)
    late, held = submit(count=3, expires_at=later()), submit(count=3, hold_until=later())
    put(late.id, expires_at=later(-1))
    put(held.id, held_until=later(-1))

    turns = [turn(hand) for _ in range(2)]

    assert [(each.cancelled, each.queued.get("default"), each.is_all) for each in turns] == [
        (2, 2, False),
        (1, 1, True),
    ]
    assert turn(hand) == Due(0, {}, {}, is_all=True)


_MANY = text("""
    INSERT INTO images (
        job_id, index, state, owner, checkpoint, pool, memory_class, urgent, priority, cost, attempt, strikes,
        held_until, held_behind, expires_at
    )
    SELECT :job_id, n, CASE n % 4 WHEN 0 THEN 'queued' WHEN 1 THEN 'succeeded' ELSE 'held' END, 'eve', :checkpoint,
           'default', 6, false, 0, 1, 0, 0,
           CASE n % 4 WHEN 2 THEN now() + interval '1 day' END,
           CASE n % 4 WHEN 3 THEN :job_id END,
           now() + interval '1 day'
    FROM generate_series(1, 20000) AS n
""")


def test_what_is_due_or_claimable_is_found_by_index_among_many(hand, submit, sessions):
    job = submit()
    asked = {"most": 500, "event": "x", "detail": "", "worker_id": hand.worker().id, "worker": ""}
    asked |= {"checkpoint": "c" * 64, "checkpoints": ["c" * 64]}
    asked |= {
        "owners": ["eve"],
        "pools": ["default"],
        "memory_classes": [6],
        "companions": [""],
        "urgents": [False],
        "counts": [1],
        "but": [],
    }
    found = []
    with sessions() as session:
        session.execute(_MANY, asked | {"job_id": job.id})
        session.execute(text("ANALYZE images, jobs"))
        for statement in (deadlines._EXPIRE, deadlines._AFTER_TIME, deadlines._AFTER_JOB, _CLAIM):
            plan = "\n".join(session.scalars(text(f"EXPLAIN (ANALYZE) {statement}"), asked))
            assert "Seq Scan on images" not in plan
            assert "Bitmap" not in plan
            found.append(set(re.findall(r"using (ix_images_\w+)", plan)))
        session.rollback()

    lane = {"ix_images_lane_companions", "ix_images_struck"}
    assert found == [{"ix_images_expires_at"}, {"ix_images_held"}, {"ix_images_held"}, lane]


def test_an_idempotency_key_covers_the_scheduling(hand):
    def submit(**scheduling):
        return hand.run(submit_job, admission("ann", PARAMS, **scheduling), "once")

    deadline = later()
    first = submit(expires_at=deadline)

    assert submit(expires_at=deadline.astimezone()).job.id == first.job.id
    with pytest.raises(Conflict, match="came with another request"):
        submit(expires_at=deadline + HOUR)
    with pytest.raises(Conflict, match="came with another request"):
        submit()


# Races


def test_turns_at_once_move_each_image_once(hand, submit, put, pool, monkeypatch):
    monkeypatch.setattr(deadlines, "MOST", 7)
    late, held = [submit(count=10, expires_at=later()) for _ in range(4)], submit(count=40, hold_until=later())
    for job in late:
        put(job.id, expires_at=later(-1))
    put(held.id, held_until=later(-1))

    def drain() -> tuple[int, int]:
        turns = []
        while not turns or not turns[-1].is_all:
            turns.append(turn(hand))
        return sum(each.cancelled for each in turns), sum(each.queued.get("default", 0) for each in turns)

    answers = [*together(pool, *[drain] * 4), drain()]

    assert [sum(column) for column in zip(*answers, strict=True)] == [40, 40]
    assert {hand.job(job.id).state for job in late} == {"cancelled"}
    assert {hand.job(job.id).unfinished for job in late} == {0}
    assert states(hand, held.id) == ["queued"] * 40


def test_a_turn_passes_by_what_another_is_moving(hand, submit, put, sessions):
    job = submit(expires_at=later())
    put(job.id, expires_at=later(-1))

    with sessions.begin() as session:
        assert deadlines.move_due(session).cancelled == 1
        assert turn(hand).cancelled == 0
    assert states(hand, job.id) == ["cancelled"]


def test_a_claim_before_the_deadline_wins_over_a_turn_after_it(hand, submit, put, sessions):
    job = submit()
    worker = hand.worker()
    lanes = hand.run(snapshot.take).lanes

    with sessions.begin() as session:
        [ours] = claim(session, policy.Worker(worker.id, ("default",)), lanes)
        assert turn(hand).cancelled == 0
    put(job.id, expires_at=later(-1))

    assert turn(hand).cancelled == 0
    assert hand.finish(ours) == "committed"


def test_claims_and_turns_around_the_deadline_leave_each_image_started_in_time_or_cancelled(hand, submit, put, pool):
    job = submit(count=400, expires_at=later())
    workers = [hand.worker() for _ in range(3)]
    assert all(worker.claim() for worker in workers), "some start in time, however slow this machine is"
    deadline = datetime.now(UTC) + timedelta(seconds=0.6)
    put(job.id, expires_at=deadline)

    def claims(worker) -> int:
        taken = 1
        while (asked_at := datetime.now(UTC)) < deadline + timedelta(seconds=0.1):
            if worker.claim() is not None:
                taken += 1
                assert asked_at < deadline
        return taken

    def turns() -> int:
        cancelled = 0
        while datetime.now(UTC) < deadline + timedelta(seconds=0.1):
            cancelled += turn(hand).cancelled
        return cancelled

    *taken, first, second = together(pool, *(partial(claims, worker) for worker in workers), turns, turns)
    first += turn(hand).cancelled

    images = hand.images(job.id)
    started = [image for image in images if image.state == "running"]
    assert len(started) == sum(taken)
    assert len(images) - len(started) == first + second == states(hand, job.id).count("cancelled") > 0
    assert hand.job(job.id).unfinished == len(started)


def test_a_hold_waits_for_a_claim_and_leaves_its_image(hand, submit, pool, sessions):
    job = submit()
    worker = hand.worker()
    lanes = hand.run(snapshot.take).lanes

    with sessions.begin() as session:
        claim(session, policy.Worker(worker.id, ("default",)), lanes)
        waiting = pool.submit(hand.run, hold, EVERYBODYS, job.id, by="ann")
        wait_for_a_lock(sessions, waiting)

    with pytest.raises(Conflict, match="is running"):
        waiting.result(10)
    assert states(hand, job.id) == ["running"]


def test_a_claim_passes_by_what_is_being_held(hand, submit, sessions):
    job = submit()
    worker = hand.worker()

    with sessions.begin() as session:
        hold(session, EVERYBODYS, job.id, by="ann")
        assert worker.claim() is None
    assert worker.claim() is None


def test_turns_holds_releases_claims_and_cancels_at_once_leave_a_job_that_adds_up(hand, submit, pool):
    job = submit(count=60, expires_at=later())

    def meddle() -> None:
        for move in (hold, release) * 8:
            try:
                hand.run(move, EVERYBODYS, job.id, by="ann")
            except Conflict:
                continue

    def work() -> None:
        worker = hand.worker()
        for _ in range(12):
            if ours := worker.claim():
                hand.finish(ours)

    def cancel() -> None:
        for index in range(0, 60, 4):
            try:
                hand.run(transitions.cancel, EVERYBODYS, job.id, index)
            except Conflict:
                continue

    together(pool, meddle, meddle, work, work, cancel, *[lambda: [turn(hand) for _ in range(10)]] * 2)

    waiting = [state for state in states(hand, job.id) if state in {"held", "queued"}]
    assert hand.job(job.id).unfinished == len(waiting)


# The beat


def test_a_beat_cancels_what_expired_and_tickets_what_is_due(hand, submit, put, sessions, settings):
    late, held = submit(expires_at=later()), submit(count=3, hold_until=later())
    put(late.id, expires_at=later(-1))
    put(held.id, held_until=later(-1))

    with made(settings, sessions) as worker, worker.events.subscribe() as told_of:
        beat = Heartbeat(worker, on_dead=lambda: pytest.fail("was declared dead"))
        beat.run_once()
        assert worker.tickets.flush()
        assert worker.redis.llen(worker.farm_id.key("pool.default")) == 3
        heard = {told_of.get(5).event for _ in range(2)}

    assert states(hand, late.id) + states(hand, held.id) == ["cancelled", "queued", "queued", "queued"]
    assert {(event.job, event.state) for event in heard} == {(late.id, "cancelled"), (held.id, "queued")}


# The fields of scheduling


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2100-01-01T00:00:00", "has no time zone"),
        ("2100-01-01", "has no time zone"),
        ("soon", "is not an instant in ISO 8601"),
        (4_000_000_000, "must be an instant, written as text"),
        (True, "must be an instant, written as text"),
        ("9999-12-31T23:59:59-12:00", "is too far away"),
    ],
)
def test_scheduling_refuses_invalid_instants(value, message):
    with pytest.raises(ValidationError, match=message):
        Scheduling(expires_at=value)


def test_scheduling_reads_any_zone_and_is_shown_in_utc():
    scheduling = Scheduling(expires_at="2100-01-01T05:30:00+05:30")

    assert scheduling.expires_at == datetime(2100, 1, 1, tzinfo=UTC)
    assert utc_words(scheduling.expires_at) == "2100-01-01 00:00 UTC"
