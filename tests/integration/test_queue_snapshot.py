"""The snapshot that the policy decides on: what it tells, and how processes share it."""

from __future__ import annotations

import json

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text

from shared.accounts import limit_rows
from shared.accounts.limits import OwnerLimits
from shared.accounts.principal import LOCAL
from shared.db import sessions as database
from shared.db.farm import farm_id
from shared.db.states import WorkerState
from shared.models.model_set import ModelSet
from shared.queue import claim as claims
from shared.queue import policy, snapshot
from shared.queue.policy import Owner
from shared.queue.snapshot import Snapshot, Snapshots
from tests.support.queueing import Farmhand


@pytest.fixture
def hand(sessions: database.Sessions) -> Farmhand:
    return Farmhand(sessions)


@pytest.fixture
def redis(redis_url):
    with Redis.from_url(redis_url) as client:
        yield client


def test_take_tells_each_lane_by_its_head(hand, job_factory):
    old = job_factory(owner="ann", count=3)
    high = job_factory(owner="ann", scheduling={"priority": 5})
    job_factory(owner="bob", scheduling={"urgent": True})
    job_factory(owner="bob", checkpoint="d" * 64)
    job_factory(owner="bob", scheduling={"pool": "large"})
    job_factory(owner="bob", width=1024)

    lanes = hand.run(snapshot.take).lanes

    assert [(lane.owner, lane.checkpoint[0], lane.pool, lane.memory_class) for lane in lanes] == [
        ("ann", "c", "default", 6),
        ("bob", "c", "default", 6),
        ("bob", "c", "default", 10),
        ("bob", "c", "large", 6),
        ("bob", "d", "default", 6),
    ]
    assert lanes[0].head == hand.images(high.id)[0].id
    assert lanes[0].priority == 5
    assert [lane.urgent for lane in lanes] == [False, True, False, False, False]
    assert old.id < high.id


def test_take_on_an_empty_farm_is_empty(hand):
    taken = hand.run(snapshot.take)

    assert taken.lanes == ()
    assert taken.farm.workers == ()


def test_take_counts_running_work_and_remembers_who_was_served(hand, job_factory):
    job = job_factory(owner="ann", count=3)
    job_factory(owner="bob")
    worker = hand.worker()
    before = hand.run(snapshot.take)
    taken = [worker.claim() for _ in range(3)]
    job_factory(owner="ann")
    hand.finish(next(claim for claim in taken if claim.owner == "ann"))

    farm = hand.run(snapshot.take).farm

    assert before.farm.owners == {"ann": Owner(), "bob": Owner()}
    assert farm.owners["ann"].running == hand.images(job.id)[0].cost
    assert before.taken_at <= farm.owners["ann"].served_at <= farm.now


def test_take_knows_how_many_images_of_an_owner_may_run_at_once(hand, job_factory):
    for owner in ("ann", "bob", "cem", "dan"):
        job_factory(owner=owner)
    of_role = OwnerLimits(role_running=3, is_told=False)
    hand.run(limit_rows.tell_workers, "ann", of_role)
    for owner, given in {"bob": {"running": 2}, "cem": {"running": None}}.items():
        hand.run(limit_rows.tell_workers, owner, of_role)
        hand.run(limit_rows.change, owner, given, LOCAL)
    assert hand.worker().claim().owner == "ann"
    job_factory(owner="ann")

    owners = hand.run(snapshot.take).farm.owners

    assert {name: (one.images, one.most) for name, one in owners.items()} == {
        "ann": (1, 3),
        "bob": (0, 2),
        "cem": (0, None),
        "dan": (0, None),
    }
    hand.run(limit_rows.clear, "bob", LOCAL)
    assert hand.run(snapshot.take).farm.owner("bob").most == 3


def test_claims_beside_the_snapshot_are_counted_image_by_image(hand, job_factory, sessions, redis, monkeypatch):
    monkeypatch.setattr(snapshot, "HEARD_SECONDS", 0)
    job_factory(owner="ann", count=9)
    hand.run(limit_rows.change, "ann", {"running": 4}, LOCAL)
    mine, others = Snapshots(sessions, redis), Snapshots(sessions, redis)
    mine.current(60)
    others.add_claim({"ann": 40}, {"ann": 3})
    redis.zadd(farm_id(sessions).key(snapshot.CLAIMS), {json.dumps([0, {"ann": 7}, "of an older version"]): 0})

    assert mine.current(60).farm.owner("ann").images == 4
    assert mine.current(60).farm.owner("ann").is_full


def test_take_shows_living_workers_with_their_free_slots_and_residents(hand, job_factory, sessions):
    job_factory(count=2)
    worker, silent = hand.worker(slots=3), hand.worker()
    worker.claim()
    worker.heartbeat(running={}, state="ready", resident=["c" * 64], load_seconds=2.5)
    with sessions.begin() as session:
        session.execute(text("UPDATE workers SET lease_until = now() WHERE id = :id"), {"id": silent.id})

    assert hand.run(snapshot.take).farm.workers == (
        policy.Worker(worker.id, ("default",), WorkerState.READY, frozenset(["c" * 64]), 2, 2.5, name=worker.name),
    )


def test_a_snapshot_survives_its_json(hand, job_factory):
    job_factory(owner="ann", count=2)
    job_factory(owner="bob")
    worker = hand.worker()
    worker.heartbeat(running={}, resident=["c" * 64])
    worker.claim()
    taken = hand.run(snapshot.take)

    assert Snapshot.from_json(taken.to_json()) == taken


def test_take_counts_what_waits_in_a_lane_up_to_a_bound(hand, job_factory):
    short = job_factory(owner="ann", count=3)
    job_factory(owner="bob", count=snapshot.COUNTED + 50)

    lanes = hand.run(snapshot.take).lanes

    assert [lane.queued for lane in lanes] == [3, snapshot.COUNTED]
    assert lanes[0].cost == hand.images(short.id)[0].cost


def test_all_who_share_a_snapshot_know_what_was_claimed_after_it(hand, job_factory, sessions, redis, monkeypatch):
    monkeypatch.setattr(snapshot, "HEARD_SECONDS", 0)
    job_factory(owner="ann")
    mine, others = Snapshots(sessions, redis), Snapshots(sessions, redis)
    assert mine.current(60).farm.owner("ann").running == 0

    mine.add_claim({"ann": 40}, {"ann": 1})
    others.add_claim({"ann": 2}, {"ann": 1})

    assert mine.current(60).farm.owner("ann").running == 42
    assert others.current(60).farm.owner("ann").running == 42
    assert others.current(0).farm.owner("ann").running == 0  # a new one knows by itself


def test_what_redis_said_a_moment_ago_is_not_asked_again(hand, job_factory, sessions, redis, monkeypatch):
    monkeypatch.setattr(snapshot, "HEARD_SECONDS", 60)
    job_factory(owner="ann")
    mine, others = Snapshots(sessions, redis), Snapshots(sessions, redis)
    mine.current(60)
    others.add_claim({"ann": 2}, {"ann": 1})

    mine.add_claim({"ann": 40}, {"ann": 1})
    assert mine.current(60).farm.owner("ann").running == 40
    monkeypatch.setattr(snapshot, "HEARD_SECONDS", 0)
    assert mine.current(60).farm.owner("ann").running == 42


def test_a_process_without_redis_goes_on_with_its_own_for_a_while(hand, job_factory, sessions):
    alone = Snapshots(sessions, None)
    first = alone.current()
    job_factory(owner="ann")
    alone.add_claim({"ann": 40}, {"ann": 1})

    again = alone.current()

    assert again.taken_at == first.taken_at
    assert again.farm.owner("ann").running == 40
    assert len(alone.current(0).lanes) == 1


def test_current_is_taken_once_and_shared(hand, job_factory, sessions, redis):
    first = Snapshots(sessions, redis).current(60)
    job_factory()

    assert Snapshots(sessions, redis).current(60) == first


def test_current_of_age_zero_is_taken_now_and_shared(hand, job_factory, sessions, redis):
    Snapshots(sessions, redis).current(60)
    job_factory()

    fresh = Snapshots(sessions, redis).current(0)

    assert len(fresh.lanes) == 1
    assert Snapshots(sessions, redis).current(60) == fresh


def test_current_goes_to_the_next_in_turn_when_it_is_stale(sessions, redis, farm_id):
    first = Snapshots(sessions, redis).current(60)
    redis.delete(farm_id.key(snapshot.TURN))

    assert Snapshots(sessions, redis).current(60).taken_at > first.taken_at


@pytest.mark.parametrize("stored", [None, b"{}", b"\x80"])
def test_current_is_taken_for_oneself_when_the_shared_one_is_missing_or_unreadable(sessions, redis, stored, farm_id):
    redis.set(farm_id.key(snapshot.TURN), b"1")
    if stored is not None:
        redis.set(farm_id.key(snapshot.KEY), stored)

    assert Snapshots(sessions, redis).current().lanes == ()


def test_current_without_redis_is_taken_each_time(hand, job_factory, sessions, tmp_path):
    away = Redis(unix_socket_path=str(tmp_path / "nobody"), retry=Retry(NoBackoff(), 0))
    job_factory()

    assert len(Snapshots(sessions, None).current().lanes) == 1
    assert len(Snapshots(sessions, away).current().lanes) == 1


def test_every_lane_is_claimable_with_what_the_snapshot_says_of_it(hand, job_factory):
    job_factory(owner="ann")
    job_factory(owner="bob", scheduling={"urgent": True, "priority": 3})
    worker = hand.worker()
    me = policy.Worker(worker.id, ("default",))

    for lane in hand.run(snapshot.take).lanes:
        [found] = hand.run(claims.claim, me, [lane])
        assert (found.image_id, found.is_urgent) == (lane.head, lane.urgent)


def test_a_claim_made_while_a_snapshot_is_taken_is_counted_once(hand, job_factory, sessions, redis, monkeypatch):
    """Whether it was noted before the snapshot is shared or after, and whether the snapshot saw it or not."""
    monkeypatch.setattr(snapshot, "HEARD_SECONDS", 0)
    job_factory(owner="ann", count=4)
    me, take = policy.Worker(hand.worker().id, ("default",)), snapshot.take
    mine, others = Snapshots(sessions, redis), Snapshots(sessions, redis)
    [lane] = hand.run(take).lanes
    cost = lane.cost

    def claimed() -> claims.Claim:
        [ours] = hand.run(claims.claim, me, [lane])
        return ours

    def noted(ours: claims.Claim) -> None:
        others.add_claim({ours.owner: ours.cost}, {ours.owner: 1}, ours.transaction)

    early = claimed()  # the snapshot sees it; it is noted late

    def slow(session):
        taken = take(session)
        noted(claimed())  # the snapshot does not see it, and it is noted before that is shared
        return taken

    monkeypatch.setattr(snapshot, "take", slow)
    assert mine.current(60).farm.owner("ann").running == cost
    noted(early)
    monkeypatch.setattr(snapshot, "take", take)
    for one in (mine, others, Snapshots(sessions, redis)):
        assert one.current(60).farm.owner("ann").running == 2 * cost
    noted(claimed())
    for one in (mine, others, Snapshots(sessions, redis)):
        assert one.current(60).farm.owner("ann").running == 3 * cost
    assert others.current(0).farm.owner("ann").running == 3 * cost


def test_without_redis_a_claim_made_while_a_snapshot_is_taken_is_counted_too(hand, job_factory, sessions, monkeypatch):
    job_factory(owner="ann", count=2)
    me, take, alone = policy.Worker(hand.worker().id, ("default",)), snapshot.take, Snapshots(sessions, None)
    [lane] = hand.run(take).lanes

    def slow(session):
        taken = take(session)
        [ours] = hand.run(claims.claim, me, [lane])
        alone.add_claim({ours.owner: ours.cost}, {ours.owner: 1}, ours.transaction)
        return taken

    monkeypatch.setattr(snapshot, "take", slow)
    assert alone.current(0).farm.owner("ann").running == lane.cost


def test_what_every_snapshot_to_come_sees_is_not_kept(hand, job_factory, sessions, redis, farm_id):
    job_factory(owner="ann")
    ours = hand.worker().claim()
    shared = Snapshots(sessions, redis)
    shared.add_claim({"ann": 1}, {"ann": 1}, ours.transaction)
    shared.current(0)
    assert redis.zcard(farm_id.key(snapshot.CLAIMS)) == 0


def test_a_snapshot_of_the_version_before_is_replaced(hand, job_factory, sessions, redis, farm_id):
    """Its lanes are merged over companions, so the policy would decide on lanes that no claim finds."""
    job_factory(models=ModelSet(checkpoint="c" * 64, refiner="d" * 64))
    before = (
        b'{"lanes":[{"owner":"ann","checkpoint":"c","pool":"default","memory_class":6,"urgent":false,"priority":0,'
        b'"head":1,"queued_at":1.0,"cost":1,"queued":1,"needs":5}],"farm":{"now":1.0,"owners":{},"workers":[{"id":1,'
        b'"pools":["default"],"state":"ready","resident":[],"free_slots":1,"load_seconds":null,"name":"",'
        b'"memory_bytes":8}]},"seen":null}'
    )
    with pytest.raises(ValueError, match="companions"):
        Snapshot.from_json(before)
    for key, value in ((snapshot.TURN, b"1"), (snapshot.STAMP, b"1.0"), (snapshot.KEY, before)):
        redis.set(farm_id.key(key), value)

    current = Snapshots(sessions, redis).current(60)

    assert current.lanes == hand.run(snapshot.take).lanes
    assert current.lanes[0].companions
    assert Snapshot.from_json(redis.get(farm_id.key(snapshot.KEY))) == current
