"""The work of images is counted once, however their attempts end."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import pytest
from sqlalchemy import text, update

from shared.accounts import usage
from shared.accounts.principal import Principal, Role
from shared.accounts.scope import EVERYBODYS
from shared.db import tables
from shared.queue import transitions
from tests.support.queueing import Farmhand

ANN, BOB = (Principal(name, Role.USER) for name in ("ann", "bob"))
EVER = date(2000, 1, 1)


class Used(NamedTuple):
    images: int
    gpu_seconds: float
    bytes: int


def used(session, who, since):
    """Return the sum of what the images of `who` took since a day began, as limits and pages read it."""
    sums = text(f"""
        SELECT coalesce(sum(images), 0)::bigint, coalesce(sum(gpu_seconds), 0), coalesce(sum(bytes), 0)::bigint
        FROM ({usage.TAKEN}) AS taken
        WHERE owner = :owner AND day >= :since
    """)
    return Used(*session.execute(sums, {"owner": who.owner, "since": since}).one())


@pytest.fixture
def farm(sessions):
    return Farmhand(sessions)


@pytest.fixture
def took(farm):
    """What an owner's images took, the same before and after it is added to the days."""

    def ask(who=ANN, since=EVER):
        before = farm.run(used, who, since)
        farm.run(usage.fold)
        assert farm.run(used, who, since) == pytest.approx(before)
        return before

    return ask


def claimed(farm, worker, seconds_ago):
    """Return a claim that was made some time ago."""
    ours = worker.claim()
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    farm.run(lambda session: session.execute(update(tables.Image).filter_by(id=ours.image_id).values(started_at=at)))
    return ours


def test_a_picture_counts_for_its_owner_with_its_bytes_and_the_seconds_that_its_worker_says(farm, job_factory, took):
    job_factory(owner="ann", count=2)
    worker = farm.worker()
    pictures = [transitions.Stored(worker.claim(), 1000, seconds) for seconds in (1.5, 2.5)]
    farm.run(transitions.finish_all, pictures)
    farm.run(transitions.finish_all, pictures)  # as after a lost answer
    assert took() == (2, 4.0, 2000)
    assert took(BOB) == (0, 0, 0)


def test_images_side_by_side_share_the_time_where_their_worker_says_nothing(farm, job_factory, took):
    job = job_factory(owner="ann", count=2)
    worker = farm.worker()
    for _ in range(2):
        claimed(farm, worker, seconds_ago=60)
    farm.run(transitions.cancel, EVERYBODYS, job.id)
    assert took() == (0, pytest.approx(60, abs=5), 0)


def test_an_image_that_waited_took_nothing(farm, job_factory, took):
    job = job_factory(owner="ann")
    farm.run(transitions.cancel, EVERYBODYS, job.id)
    assert took() == (0, 0, 0)


def test_each_attempt_counts_whatever_came_of_it(farm, job_factory, took):
    job = job_factory(owner="ann")
    worker = farm.worker()
    ours = worker.claim()
    farm.run(transitions.hand_back, worker.id, {ours.image_id: ours.attempt}, gpu_seconds=1.0)
    farm.run(transitions.fail, worker.claim(), "broken", gpu_seconds=2.0)
    farm.run(transitions.retry, EVERYBODYS, job.id)
    farm.run(transitions.finish_all, [transitions.Stored(worker.claim(), 7, 4.0)])
    assert took() == (1, 7.0, 7)


def test_a_dead_workers_images_took_the_card_up_to_its_last_sign_of_life(farm, job_factory, took):
    job_factory(owner="ann", count=2)
    worker = farm.worker()
    for _ in range(2):
        claimed(farm, worker, seconds_ago=100)
    silent = "UPDATE workers SET lease_until = now() - interval '1 s', beat_at = now() - interval '40 s'"
    farm.run(lambda session: session.execute(text(silent)))
    worker.mark_dead(crashed=False)
    assert took() == (0, pytest.approx(60, abs=5), 0)


def test_what_a_day_took_stays_on_its_day(farm, job_factory, took):
    job_factory(owner="ann", count=2)
    worker = farm.worker()
    farm.finish(worker.claim())
    farm.run(lambda session: session.execute(text("UPDATE usage_attempts SET at = '2026-03-01 23:59:59.9+00'")))
    farm.finish(worker.claim())
    assert took().images == 2
    assert took(since=date(2026, 3, 2)).images == 1


def test_usage_outlives_the_job(farm, job_factory, took):
    job = job_factory(owner="ann")
    farm.finish(farm.worker().claim())
    farm.run(transitions.delete, EVERYBODYS, job.id)
    assert took().images == 1


def test_a_fold_that_is_rolled_back_has_counted_nothing(farm, job_factory):
    job_factory(owner="ann")
    farm.finish(farm.worker().claim())
    with farm.sessions() as session:
        assert usage.fold(session) == 1
        session.rollback()
    assert farm.run(usage.fold) == 1
    assert farm.run(used, ANN, EVER).images == 1


def test_what_is_being_folded_is_not_counted_twice_or_missed_by_who_reads_meanwhile(farm, job_factory):
    job_factory(owner="ann")
    farm.finish(farm.worker().claim())
    with farm.sessions() as session:
        usage.fold(session)
        assert farm.run(used, ANN, EVER).images == 1
        assert farm.run(usage.fold) == 0  # what another process folds is left to it
        session.commit()
    assert farm.run(used, ANN, EVER).images == 1
