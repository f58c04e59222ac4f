"""Many images in one transaction: claims of several lanes, and the ends of what several slots have rendered."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest
from sqlalchemy import update

from shared.accounts.scope import EVERYBODYS
from shared.db import sessions as database
from shared.db.states import JobState
from shared.db.tables import Job
from shared.errors import NotUnderstood, Unavailable
from shared.models.model_set import ModelSet
from shared.queue import policy, snapshot, transitions
from shared.queue.claim import claim
from shared.queue.transitions import Ended, Finish, Stored
from tests.support.queueing import Farmhand
from tests.support.statements import statements
from tests.support.waiting import until
from tests.support.workers import TICKET, made
from worker.dispatch import claimer as claims_module
from worker.dispatch.claimer import Claimer


@pytest.fixture
def hand(sessions: database.Sessions) -> Farmhand:
    return Farmhand(sessions)


def policy_of(worker) -> policy.Worker:
    return policy.Worker(worker.id, ("default",))


def lanes_of(hand: Farmhand) -> dict[str, policy.Lane]:
    """The lanes by their owners."""
    return {lane.owner: lane for lane in hand.run(snapshot.take).lanes}


def owners(claims) -> Counter[str]:
    return Counter(ours.owner for ours in claims)


def test_each_lane_gives_as_many_as_it_is_asked_for_the_oldest_first(hand, job_factory, sessions):
    of_ann, of_bob = job_factory(owner="ann", count=5), job_factory(owner="bob", count=5)
    lane = lanes_of(hand)
    me = policy_of(hand.worker())

    with statements(sessions) as sent:
        taken = hand.run(claim, me, [lane["ann"], lane["bob"], lane["ann"], lane["bob"]])

    assert len(sent) == 1
    assert {(ours.owner, ours.index) for ours in taken} == {("ann", 0), ("ann", 1), ("bob", 0), ("bob", 1)}
    assert [image.state for image in hand.images(of_ann.id)] == ["running"] * 2 + ["queued"] * 3
    assert [image.attempt for image in hand.images(of_bob.id)] == [1, 1, 0, 0, 0]


def test_what_a_lane_is_short_of_the_following_give(hand, job_factory, settings, sessions):
    for owner in ("ann", "bob", "cid"):
        job_factory(owner=owner)
    seen = hand.run(snapshot.take)
    hand.run(claim, policy_of(hand.worker()), [lanes_of(hand)["ann"]])

    with made(settings, sessions) as worker, statements(sessions) as sent:
        taken = Claimer(worker)._take(seen, 2)

    assert owners(taken) == {"bob": 1, "cid": 1}
    assert len([one for one in sent if "SKIP LOCKED" in one]) == 2


def test_what_was_claimed_is_kept_when_the_database_goes_away_before_the_rest(
    hand, job_factory, settings, sessions, monkeypatch
):
    job_factory(owner="ann", count=2)
    job_factory(owner="bob", count=2)
    seen = hand.run(snapshot.take)
    hand.run(claim, policy_of(hand.worker()), [lanes_of(hand)["ann"]] * 2)
    statements, transact = [], database.transact

    def once(*given):
        statements.append(given)
        if len(statements) > 1:
            raise Unavailable("away")
        return transact(*given)

    monkeypatch.setattr(claims_module, "transact", once)
    with made(settings, sessions) as worker:
        assert owners(Claimer(worker)._take(seen, 3)) == {"bob": 1}
        with pytest.raises(Unavailable):
            Claimer(worker)._take(seen, 3)


def test_a_group_has_one_struck_image_at_most(hand, job_factory):
    job_factory(owner="ann", count=3)
    job_factory(owner="bob", count=3)
    dead = hand.worker()
    struck = {dead.claim().image_id for _ in range(4)}
    dead.mark_dead(crashed=True)
    lane = lanes_of(hand)
    worker = hand.worker()

    taken = hand.run(claim, policy_of(worker), [lane["ann"], lane["bob"]] * 3)
    more = hand.run(claim, policy_of(worker), [lane["ann"], lane["bob"]] * 3)

    assert len([ours for ours in taken if ours.image_id in struck]) == 1
    assert not [ours for ours in more if ours.image_id in struck]
    assert len(taken) + len(more) == 3  # that one, and the two that have no strike


def test_an_urgent_head_takes_no_ordinary_image_along(hand, job_factory, settings, sessions):
    job_factory(owner="ann", count=9)
    urgent = job_factory(owner="ann", scheduling={"urgent": True})
    job_factory(owner="bob", count=9)
    lane = lanes_of(hand)
    assert (lane["ann"].urgent, lane["ann"].queued) == (True, 1)

    with made(settings, sessions) as worker:
        taken = Claimer(worker)._claims(4, 0.0)

    assert [ours.job_id for ours in taken if ours.owner == "ann"] == [urgent.id]
    assert owners(taken) == {"ann": 1, "bob": 3}


def test_a_job_of_a_younger_farm_says_so_when_it_is_read(hand, job_factory):
    job_factory(owner="ann")
    younger = job_factory(owner="ann")
    change = update(Job).values(params=Job.params.concat({"mood": "blue"})).where(Job.id == younger.id)
    hand.run(lambda session: session.execute(change))
    [lane] = hand.run(snapshot.take).lanes

    ours, strange = hand.run(claim, policy_of(hand.worker()), [lane] * 2)

    assert ours.params.prompt
    with pytest.raises(NotUnderstood, match=f"job {younger.id} is from a newer version of the farm: mood"):
        _ = strange.params


def test_a_claim_brings_the_memory_class_and_the_model_set_of_its_job(hand, job_factory):
    models = ModelSet(checkpoint="c" * 64, vae="a" * 64)
    job_factory(models=models)
    older = job_factory()
    hand.run(lambda session: session.execute(update(Job).where(Job.id == older.id).values(models=None)))
    [lane] = hand.run(snapshot.take).lanes

    ours, of_older = hand.run(claim, policy_of(hand.worker()), [lane] * 2)

    assert (ours.models, of_older.models) == (models, None)
    assert ours.memory_class == of_older.memory_class == lane.memory_class == 6
    assert hand.job(older.id).models is None


def test_model_set_with_a_role_of_a_younger_farm_says_so(hand, job_factory):
    younger = job_factory()
    change = update(Job).values(models={"checkpoint": "c" * 64, "control": {"depth": "d" * 64}})
    hand.run(lambda session: session.execute(change))
    [lane] = hand.run(snapshot.take).lanes

    [strange] = hand.run(claim, policy_of(hand.worker()), [lane])

    words = rf"job {younger.id} is from a newer version of the farm: its model files \(control\)"
    with pytest.raises(NotUnderstood, match=words):
        _ = strange.models


def test_two_workers_groups_never_meet(hand, job_factory, sessions):
    job_factory(owner="ann", count=6)
    lane = lanes_of(hand)["ann"]
    first, second = policy_of(hand.worker()), policy_of(hand.worker())

    with sessions.begin() as session:
        taken = claim(session, first, [lane] * 4)
        rest = hand.run(claim, second, [lane] * 4)

    assert (len(taken), len(rest)) == (4, 2)
    assert not {ours.image_id for ours in taken} & {ours.image_id for ours in rest}


def test_slots_that_ask_at_once_share_a_statement_and_the_owners_share_the_slots(
    settings, sessions, job_factory, monkeypatch
):
    for owner in ("ann", "bob", "cid"):
        job_factory(owner=owner, count=9)
    with made(settings, sessions) as worker, ThreadPoolExecutor(8) as pool:
        claims = Claimer(worker)
        claims._snapshots.current()
        asked, go, take = Event(), Event(), claims._take
        monkeypatch.setattr(claims, "_take", lambda *wanted: (asked.set(), go.wait(10), take(*wanted))[-1])
        slots = [pool.submit(claims.next, TICKET)]
        until(asked.is_set)
        slots += [pool.submit(claims.next, TICKET) for _ in range(6)]
        until(lambda: len(claims._soon._waiting) == 6)
        with statements(sessions) as sent:
            go.set()
            taken = [slot.result(10).claim for slot in slots]
    assert len({ours.image_id for ours in taken}) == 7
    assert max(owners(taken).values()) - min(owners(taken).values()) == 1
    assert len([one for one in sent if "SKIP LOCKED" in one]) == 2  # the first alone, then the six


def test_the_ends_of_a_group_end_their_jobs(hand, job_factory, sessions):
    whole, half = job_factory(count=2), job_factory(count=2)
    worker = hand.worker()
    mine = [worker.claim() for _ in range(4)]
    of_whole = [ours for ours in mine if ours.job_id == whole.id]
    one, other = (ours for ours in mine if ours.job_id == half.id)
    hand.run(transitions.cancel, EVERYBODYS, half.id, other.index)

    with statements(sessions) as sent:
        ended = hand.run(transitions.finish_all, [Stored(other, 7), Stored(of_whole[0], 8), Stored(of_whole[1], 9)])

    assert ended == [Ended(Finish.REFUSED), *[Ended(Finish.COMMITTED, JobState.SUCCEEDED)] * 2]
    assert len(sent) == 2  # all at once, how the refused one stands
    assert [image.bytes for image in hand.images(whole.id)] == [8, 9]
    assert (hand.job(half.id).unfinished, hand.job(half.id).state) == (1, "open")
    assert hand.run(transitions.finish_all, [Stored(one, 1), Stored(of_whole[0], 8)]) == [
        Ended(Finish.COMMITTED, JobState.CANCELLED),
        Ended(Finish.ALREADY_MINE, JobState.SUCCEEDED),
    ]


def test_two_attempts_at_an_image_in_one_group_are_told_apart(hand, job_factory):
    job_factory()
    worker = hand.worker()
    earlier = worker.claim()
    hand.run(transitions.hand_back, worker.id, {earlier.image_id: 1})
    later = worker.claim()

    ended = hand.run(transitions.finish_all, [Stored(earlier, 1), Stored(later, 2)])

    assert [one.finish for one in ended] == [Finish.REFUSED, Finish.COMMITTED]


def test_groups_that_end_the_same_jobs_at_once_count_right_and_do_not_deadlock(hand, job_factory, sessions):
    jobs = [job_factory(count=30) for _ in range(4)]
    workers = [hand.worker() for _ in range(4)]
    held = {worker.id: [] for worker in workers}
    for _ in range(30):
        for worker in workers:
            held[worker.id].append(worker.claim())
    for seed, mine in held.items():
        random.Random(seed).shuffle(mine)
    groups = {worker: [mine[at : at + 6] for at in range(0, len(mine), 6)] for worker, mine in held.items()}
    assert all(len({ours.job_id for ours in group}) > 1 for mine in groups.values() for group in mine)
    barrier = Barrier(len(workers))

    def end(mine) -> list[Ended]:
        ended: list[Ended] = []
        for group in mine:
            barrier.wait(10)
            with sessions.begin() as session:  # a deadlock is raised, not tried again
                ended += transitions.finish_all(session, [Stored(ours, 1) for ours in group])
        return ended

    with ThreadPoolExecutor(len(workers)) as pool:
        ended = [one for group in pool.map(end, groups.values()) for one in group]

    assert Counter(one.finish for one in ended) == {Finish.COMMITTED: 120}
    assert [(hand.job(job.id).unfinished, hand.job(job.id).state) for job in jobs] == [(0, "succeeded")] * 4
    assert len([one for one in ended if one.job == JobState.SUCCEEDED]) >= 4
