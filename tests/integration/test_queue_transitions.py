"""The moves of images, on a real database."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import select, text

from shared.accounts.scope import EVERYBODYS, Scope
from shared.db import sessions as database
from shared.db import storable
from shared.db.states import JobState
from shared.db.tables import History, Image, Job
from shared.errors import Conflict, NotFound
from shared.queue import holds, rescheduling, transitions
from shared.queue.rescheduling import Change
from shared.queue.transitions import Ended, Finish
from tests.support.queueing import Farmhand


@pytest.fixture
def hand(sessions: database.Sessions) -> Farmhand:
    return Farmhand(sessions)


def test_submit_makes_a_row_an_image_in_order_of_index(hand, job_factory):
    job = job_factory(count=3)

    images = hand.images(job.id)

    assert [image.index for image in images] == [0, 1, 2]
    assert {image.state for image in images} == {"queued"}
    assert (job.state, job.unfinished, job.count) == ("open", 3, 3)


def test_submit_counts_work_in_rows_steps_and_latent_cells(hand, job_factory):
    guided = job_factory(width=128, height=64, steps=5, cfg_scale=7.0)
    unguided = job_factory(width=128, height=64, steps=5, cfg_scale=1.0)

    assert hand.images(guided.id)[0].cost == 2 * 5 * (16 * 8)
    assert hand.images(unguided.id)[0].cost == 1 * 5 * (16 * 8)


def test_claim_carries_the_image_s_own_parameters(hand, job_factory):
    job_factory(count=2, seed=40)
    worker = hand.worker()

    first, second = worker.claim(), worker.claim()

    assert (first.index, first.params.seed, first.params.count) == (0, 40, 1)
    assert (second.index, second.params.seed) == (1, 41)
    assert worker.claim() is None


def test_claim_raises_the_attempt_and_never_touches_the_job(hand, job_factory, sessions):
    job = job_factory()
    written_by = text("SELECT xmin::text FROM jobs WHERE id = :id").bindparams(id=job.id)
    with sessions() as session:
        before = session.scalar(written_by)

    claim = hand.worker().claim()

    with sessions() as session:
        assert session.scalar(written_by) == before
    assert claim.attempt == hand.images(job.id)[0].attempt == 1


def test_claim_goes_by_priority_then_age_within_a_lane(hand, job_factory):
    jobs = [job_factory(scheduling={"priority": priority}).id for priority in (0, 5, 5)]
    worker = hand.worker()

    assert [worker.claim().job_id for _ in jobs] == [jobs[1], jobs[2], jobs[0]]


def test_claim_by_a_worker_that_was_declared_dead_finds_nothing(hand, job_factory):
    job_factory()
    worker = hand.worker()
    worker.mark_dead()

    assert worker.claim() is None


def test_claim_leaves_other_pools_alone(hand, job_factory):
    job_factory(scheduling={"pool": "large"})

    assert hand.worker().claim() is None
    assert hand.worker(pool="large").claim() is not None


def test_finish_of_the_last_image_ends_the_job(hand, job_factory):
    job = job_factory(count=2)
    worker = hand.worker()
    first, second = worker.claim(), worker.claim()

    assert hand.finish(first) == Finish.COMMITTED
    assert hand.job(job.id).state == "open"
    assert hand.finish(second) == Finish.COMMITTED

    ended = hand.job(job.id)
    assert (ended.state, ended.unfinished) == ("succeeded", 0)
    assert ended.ended_at is not None


def test_finish_repeated_after_a_lost_answer_is_already_mine(hand, job_factory):
    job_factory()
    claim = hand.worker().claim()
    hand.finish(claim)

    assert hand.finish(claim) == Finish.ALREADY_MINE


def test_the_end_of_a_jobs_last_image_tells_how_the_job_ended(hand, job_factory):
    job_factory(count=2)
    worker = hand.worker()
    first, last = worker.claim(), worker.claim()

    assert hand.run(transitions.fail, first, "broken") == Ended(Finish.COMMITTED)
    assert hand.run(transitions.finish, last, 1) == Ended(Finish.COMMITTED, JobState.FAILED)
    assert hand.run(transitions.finish, last, 1) == Ended(Finish.ALREADY_MINE, JobState.FAILED)  # its answer was lost
    assert hand.run(transitions.fail, last, "broken") == Ended(Finish.REFUSED)


def test_finish_of_an_image_that_another_worker_has_now_is_refused(hand, job_factory):
    job = job_factory()
    lost = hand.worker()
    stale = lost.claim()
    lost.mark_dead()
    fresh = hand.worker().claim()

    assert hand.finish(stale) == Finish.REFUSED
    assert fresh.attempt == stale.attempt + 1
    assert hand.finish(fresh) == Finish.COMMITTED
    assert hand.finish(stale) == Finish.REFUSED
    assert hand.images(job.id)[0].attempt == fresh.attempt


def test_finish_of_an_earlier_attempt_by_the_same_worker_is_refused(hand, job_factory):
    job_factory()
    worker = hand.worker()
    earlier = worker.claim()
    hand.run(transitions.hand_back, worker.id, {earlier.image_id: 1})
    later = worker.claim()

    assert hand.finish(earlier) == Finish.REFUSED
    assert hand.finish(later) == Finish.COMMITTED
    assert hand.finish(earlier) == Finish.REFUSED


def test_finish_after_a_cancel_is_refused(hand, job_factory):
    job = job_factory()
    claim = hand.worker().claim()
    hand.run(transitions.cancel, EVERYBODYS, job.id)

    assert hand.finish(claim) == Finish.REFUSED
    assert hand.images(job.id)[0].state == "cancelled"


def test_fail_keeps_the_reason_and_fails_the_job_even_beside_cancelled_images(hand, job_factory):
    job = job_factory(count=3)
    worker = hand.worker()
    claims = [worker.claim(), worker.claim()]
    hand.finish(claims[0])
    hand.run(transitions.fail, claims[1], "The card is on fire.")
    hand.run(transitions.cancel, EVERYBODYS, job.id)

    images = hand.images(job.id)
    assert [image.state for image in images] == ["succeeded", "failed", "cancelled"]
    assert images[1].reason == "The card is on fire."
    assert images[1].worker == worker.name
    assert hand.job(job.id).state == "failed"
    assert hand.run(transitions.fail, claims[1], "again").finish == Finish.ALREADY_MINE
    assert hand.run(transitions.fail, claims[0], "too late").finish == Finish.REFUSED


def test_fail_takes_any_text_as_its_reason(hand, job_factory):
    job = job_factory()

    hand.run(transitions.fail, hand.worker().claim(), "cannot read \udcff\x00.safetensors" + "x" * 5000)

    reason = hand.images(job.id)[0].reason
    assert reason.startswith("cannot read ??.safetensors")
    assert len(reason) == storable.REASON_CHARS


def test_a_newcomer_is_served_within_as_many_claims_as_owners_wait(hand, job_factory):
    for owner in ("ann", "bob", "eve"):
        job_factory(owner=owner, count=10)
    worker = hand.worker()
    for _ in range(6):
        hand.finish(worker.claim())
    for _ in range(3):
        worker.claim()
    newcomer = job_factory(owner="zoe")

    served = [worker.claim().job_id for _ in range(4)]

    assert newcomer.id in served


def test_cancel_ends_queued_and_running_images_and_tells_which_ran(hand, job_factory):
    job = job_factory(count=3)
    claim = hand.worker().claim()

    cancelled = hand.run(transitions.cancel, EVERYBODYS, job.id)

    assert (cancelled.images, cancelled.running) == (3, {claim.image_id: claim.attempt})
    assert hand.job(job.id).state == "cancelled"


def test_cancel_of_one_image_leaves_the_others(hand, job_factory):
    job = job_factory(count=3)

    assert hand.run(transitions.cancel, EVERYBODYS, job.id, 1).images == 1
    assert [image.state for image in hand.images(job.id)] == ["queued", "cancelled", "queued"]
    assert hand.job(job.id).state == "open"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "Job {} cannot be cancelled: its images are cancelled and succeeded."),
        (1, "Image 1 of job {} cannot be cancelled: it is cancelled."),
    ],
)
def test_cancel_of_what_has_ended_names_its_state(hand, job_factory, index, message):
    job = job_factory(count=2)
    hand.finish(hand.worker().claim())
    hand.run(transitions.cancel, EVERYBODYS, job.id)

    with pytest.raises(Conflict, match=message.format(job.id)):
        hand.run(transitions.cancel, EVERYBODYS, job.id, index)


def test_moves_find_nothing_of_another_owner(hand, job_factory):
    job = job_factory(owner="ann", count=2)
    moves = (transitions.cancel, transitions.retry, transitions.delete)
    by_hand = (partial(holds.hold, by="bob"), partial(holds.release, by="bob"))
    change = partial(rescheduling.change, wanted=Change(priority=5, hold=True), by="bob")
    for move in (*moves, *by_hand, change):
        with pytest.raises(NotFound, match=rf"There is no job {job.id}\."):
            hand.run(move, Scope("bob"), job.id)
    assert {image.state for image in hand.images(job.id)} == {"queued"}
    assert hand.run(holds.hold, Scope("ann"), job.id, by="ann") == 2


@pytest.mark.parametrize("move", [transitions.cancel, transitions.retry])
def test_a_move_of_what_is_not_there_says_so(hand, job_factory, move):
    job = job_factory()

    with pytest.raises(NotFound, match="There is no job 4711"):
        hand.run(move, EVERYBODYS, 4711)
    with pytest.raises(NotFound, match=f"Job {job.id} has no image 9"):
        hand.run(move, EVERYBODYS, job.id, 9)


def test_retry_puts_failed_and_cancelled_images_back_and_reopens_the_job(hand, job_factory):
    job = job_factory(count=3, seed=7)
    worker = hand.worker()
    claims = [worker.claim(), worker.claim()]
    hand.finish(claims[0])
    hand.run(transitions.fail, claims[1], "broken")
    hand.run(transitions.cancel, EVERYBODYS, job.id)

    assert hand.run(transitions.retry, EVERYBODYS, job.id) == 2

    reopened = hand.job(job.id)
    assert (reopened.state, reopened.unfinished, reopened.ended_at) == ("open", 2, None)
    again = worker.claim()
    assert (again.image_id, again.attempt, again.params.seed) == (claims[1].image_id, 2, 8)
    assert hand.images(job.id)[1].reason is None


@pytest.mark.parametrize("end", [False, True])
def test_retry_of_what_neither_failed_nor_was_cancelled_names_its_state(hand, job_factory, end):
    job = job_factory()
    claim = hand.worker().claim()
    if end:
        hand.finish(claim)

    with pytest.raises(Conflict, match=f"Job {job.id} cannot be retried: it is {'succeeded' if end else 'running'}"):
        hand.run(transitions.retry, EVERYBODYS, job.id)


def test_retry_clears_strikes(hand, job_factory):
    job = job_factory()
    for _ in range(3):
        worker = hand.worker()
        worker.claim()
        worker.mark_dead(crashed=True)
    assert hand.job(job.id).state == "failed"

    hand.run(transitions.retry, EVERYBODYS, job.id)

    assert hand.images(job.id)[0].strikes == 0
    assert hand.worker().claim().attempt == 4


def test_hand_back_queues_without_a_strike_what_the_worker_still_has(hand, job_factory):
    job = job_factory(count=3)
    worker = hand.worker()
    claims = [worker.claim() for _ in range(3)]
    hand.finish(claims[0])
    held = {claims[0].image_id: 1, claims[1].image_id: 1, claims[2].image_id: 7}

    assert hand.run(transitions.hand_back, worker.id, held) == 1

    images = hand.images(job.id)
    assert [image.state for image in images] == ["succeeded", "queued", "running"]
    assert images[1].strikes == 0
    assert hand.run(transitions.hand_back, worker.id, {}) == 0


def test_history_names_the_attempt_that_was_handed_back_also_where_others_are_passed_over(hand, job_factory, sessions):
    job = job_factory()
    worker = hand.worker()
    claim = worker.claim()
    assert hand.run(transitions.hand_back, worker.id, {claim.image_id: 1}, past=4) == 1
    assert hand.images(job.id)[0].attempt == 4
    with sessions() as session:
        line = session.scalars(select(History).where(History.event == "handed back")).one()
    assert (line.attempt, line.worker) == (1, worker.name)


def test_delete_refuses_while_an_image_runs(hand, job_factory):
    job = job_factory(count=2)
    hand.worker().claim()

    with pytest.raises(Conflict, match="1 running image: cancel it"):
        hand.run(transitions.delete, EVERYBODYS, job.id)


def test_delete_removes_the_job_and_its_images(hand, job_factory, sessions):
    job = job_factory(count=2)

    hand.run(transitions.delete, EVERYBODYS, job.id)

    with sessions() as session:
        assert session.scalars(select(Image)).all() == []
        assert session.scalars(select(Job)).all() == []
    with pytest.raises(NotFound):
        hand.run(transitions.delete, EVERYBODYS, job.id)


def test_history_tells_every_move_in_order(hand, job_factory, sessions):
    job = job_factory()
    worker = hand.worker()
    hand.run(transitions.hand_back, worker.id, {worker.claim().image_id: 1})
    hand.run(transitions.fail, worker.claim(), "broken")
    hand.run(transitions.retry, EVERYBODYS, job.id)
    hand.run(transitions.cancel, EVERYBODYS, job.id)

    with sessions() as session:
        lines = session.scalars(select(History).where(History.job_id == job.id).order_by(History.id)).all()

    assert [(line.event, line.attempt, line.worker) for line in lines] == [
        ("submitted", None, None),
        ("claimed", 1, worker.name),
        ("handed back", 1, worker.name),
        ("claimed", 2, worker.name),
        ("failed", 2, worker.name),
        ("retried", 2, None),
        ("cancelled", 2, None),
    ]
    assert lines[4].detail == "broken"
