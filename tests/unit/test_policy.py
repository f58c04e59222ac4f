"""The next image, as a table of small cases; the clock of all of them stands at NOW."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.db.states import WorkerState
from shared.queue import policy
from shared.queue.policy import AFFINITY_SECONDS, SLACK, Farm, Lane, Owner, Worker

NOW = 1_000_000.0
A, B = "a" * 64, "b" * 64


def lane(owner="ann", *, waited=100.0, head=1, checkpoint=A, pool="default", priority=0, urgent=False):
    return Lane(
        owner=owner,
        checkpoint=checkpoint,
        pool=pool,
        memory_class=6,
        urgent=urgent,
        priority=priority,
        head=head,
        queued_at=NOW - waited,
        companions="",
    )


def served(seconds_ago, running=0):
    return Owner(running=running, served_at=NOW - seconds_ago)


ME = Worker(1, ("default",))


def rank(lanes, farm, me):
    return list(policy.rank(lanes, farm, me))


# name, lanes (best first), owners
ORDERS = [
    ("age decides for one owner", [lane(waited=30, head=9), lane(waited=20, head=1, checkpoint=B)], {}),
    ("of one age the lower id goes first", [lane(head=1), lane(head=2, checkpoint=B)], {}),
    (
        "priority goes before age within an owner",
        [lane(waited=20, priority=1), lane(waited=30, checkpoint=B)],
        {},
    ),
    (
        "priority does not cross owners",
        [lane("bob", priority=0), lane("ann", priority=9)],
        {"ann": served(5, running=10), "bob": served(1)},
    ),
    (
        "the least running work goes first, however old the other's queue",
        [lane("bob", waited=20), lane("ann", waited=9000)],
        {"ann": served(60, running=200), "bob": served(1, running=100)},
    ),
    (
        "of equal work the owner served longest ago",
        [lane("bob", waited=20), lane("ann", waited=9000)],
        {"ann": served(1), "bob": served(2)},
    ),
    (
        "an owner who was never served comes first",
        [lane("new", waited=0), lane("ann", waited=9000)],
        {"ann": served(9000)},
    ),
    (
        "urgent crosses owners",
        [lane("ann", urgent=True), lane("bob")],
        {"ann": served(1, running=500), "bob": Owner()},
    ),
    (
        "owners share among the urgent too",
        [lane("bob", urgent=True), lane("ann", urgent=True, waited=9000)],
        {"ann": served(1), "bob": served(2)},
    ),
]


@pytest.mark.parametrize(("lanes", "owners"), [case[1:] for case in ORDERS], ids=[case[0] for case in ORDERS])
def test_rank_orders_lanes(lanes, owners):
    farm = Farm(NOW, owners)

    assert rank(lanes, farm, ME) == lanes
    assert rank(reversed(lanes), farm, ME) == lanes


def test_rank_sees_the_lanes_of_its_own_pool_only():
    assert rank([lane(pool="large"), lane()], Farm(NOW), ME) == [lane()]
    assert rank([], Farm(NOW), ME) == []


def test_rank_leaves_out_what_has_no_room_in_this_workers_memory():
    large, small, unknown = (
        replace(lane(head=head, checkpoint=B), needs=needs) for head, needs in enumerate([9, 8, None])
    )
    assert rank([large, small, unknown], Farm(NOW), replace(ME, memory_bytes=8)) == [small, unknown]
    assert rank([large, small, unknown], Farm(NOW), ME) == [large, small, unknown], "a worker without a limit"
    assert not rank([large], Farm(NOW), replace(ME, memory_bytes=8))


def test_what_is_left_out_for_its_memory_holds_up_nothing_behind_it():
    """Neither a higher priority nor a greater age of what cannot run here counts here."""
    huge = replace(lane(waited=9000, priority=9), needs=9)
    old = replace(lane(waited=8000, head=2), needs=9)
    older, resident = lane(waited=30, head=3, checkpoint=B), lane(waited=20, head=4)
    me = replace(ME, memory_bytes=8, resident=frozenset([A]))
    assert rank([huge, old, older, resident], Farm(NOW), me) == [resident, older]


def test_a_worker_serves_all_of_its_pools_by_one_order():
    """Owners share it across its pools; within an owner age decides, whichever the pool."""
    large = [lane("ann", waited=30, head=1, pool="large"), lane("ann", waited=10, head=2, pool="large", checkpoint=B)]
    usual = [lane("ann", waited=20, head=3), lane("bob", waited=5, head=4)]
    farm = Farm(NOW, {"ann": served(1)})
    me = replace(ME, pools=("default", "large"))
    assert rank([*large, *usual, lane(pool="other")], farm, me) == [usual[1], large[0], usual[0], large[1]]
    assert rank([*large, *usual], farm, replace(ME, pools=("large",))) == large


@pytest.mark.parametrize(("pools", "left"), [(("large", "default"), True), (("large",), False)])
def test_a_lane_is_left_to_whoever_serves_its_pool_too(pools, left):
    other = Worker(2, pools, resident=frozenset([A]))
    farm = Farm(NOW, workers=(ME, other))
    assert policy.is_left_alone(lane(waited=1), farm, ME) == left
    assert policy.share_a_pool(ME, other) == left


def test_rank_prefers_what_is_resident_here_among_an_owner_s_fresh_lanes():
    older, resident = lane(waited=3, checkpoint=B), lane(waited=2)
    me = replace(ME, resident=frozenset([A]))

    assert rank([older, resident], Farm(NOW), me) == [resident, older]


def test_no_image_is_passed_over_by_one_that_was_queued_much_later():
    older, soon_after, later = (lane(waited=100, checkpoint=B), lane(waited=85), lane(waited=84.9, head=2))
    me = replace(ME, resident=frozenset([A]))

    assert rank([older, soon_after, later], Farm(NOW), me) == [soon_after, older, later]


@pytest.mark.parametrize("running", [0, 10])
def test_of_what_is_resident_here_the_shorter_lane_goes_first(running):
    long, short = replace(lane(waited=3), queued=100), replace(lane(waited=2, checkpoint=B), queued=2)
    for resident in ([A, B], [B, A]):
        me = replace(ME, resident=frozenset(resident))
        assert rank([long, short], Farm(NOW, {"ann": served(1, running=running)}), me) == [short, long]


def test_an_owner_ahead_by_one_image_goes_first_with_what_is_resident_here():
    behind, ahead = lane("ann", checkpoint=B), replace(lane("bob"), cost=50)
    me = replace(ME, resident=frozenset([A]))

    def first(running):
        return rank([behind, ahead], Farm(NOW, {"ann": served(5, 1000), "bob": served(1, running)}), me)[0]

    assert first(1000 * (1 + SLACK) + 50) == ahead
    assert first(1000 * (1 + SLACK) + 51) == behind


def test_an_owner_with_nothing_running_goes_before_all_affinity():
    waiting, resident = lane("new", waited=0, checkpoint=B), lane("ann")
    me = replace(ME, resident=frozenset([A]))

    assert rank([waiting, resident], Farm(NOW, {"ann": served(1, running=1)}), me) == [waiting, resident]


def test_workers_that_see_the_same_choose_different_checkpoints_to_load():
    waiting = [lane(checkpoint=f"{number:064}", head=number) for number in range(40)]
    farm = Farm(NOW, workers=tuple(Worker(number, ("default",)) for number in range(40)))

    firsts = [rank(waiting, farm, worker)[0].checkpoint for worker in farm.workers]

    assert len(set(firsts)) > 20
    assert firsts == [rank(reversed(waiting), farm, worker)[0].checkpoint for worker in farm.workers]


def test_a_lone_worker_loads_what_was_queued_first():
    waiting = [lane(waited=10 - number / 10, checkpoint=f"{number:064}", head=number) for number in range(40)]

    assert rank(waiting, Farm(NOW, workers=(ME,)), ME) == waiting


def test_much_that_waits_draws_more_workers_than_little():
    much, little = replace(lane(), queued=100), lane(checkpoint=B, head=2)
    farm = Farm(NOW, workers=tuple(Worker(number, ("default",)) for number in range(1000)))

    firsts = [rank([much, little], farm, worker)[0] for worker in farm.workers]

    assert 0.87 < firsts.count(much) / len(firsts) < 0.95  # ten to one: the root of what waits


def test_residency_does_not_cross_owners():
    fresh = lane("bob", waited=1, checkpoint=B)
    mine = lane("ann", waited=1)
    me = replace(ME, resident=frozenset([A]))

    assert rank([mine, fresh], Farm(NOW, {"ann": served(1)}), me) == [fresh, mine]


OTHER = Worker(2, ("default",), resident=frozenset([A]), free_slots=1)

# name, the other worker, me, seconds waited, left alone
AFFINITY = [
    ("resident there with room", OTHER, ME, 1, True),
    ("but resident here too", OTHER, replace(ME, resident=frozenset([A])), 1, False),
    ("but there is no room there", replace(OTHER, free_slots=0), ME, 1, False),
    ("but it serves another pool", replace(OTHER, pools=("large",)), ME, 1, False),
    ("but it is draining", replace(OTHER, state=WorkerState.DRAINING), ME, 1, False),
    ("but it is only starting", replace(OTHER, state=WorkerState.STARTING), ME, 1, False),
    ("but it has not the memory", replace(OTHER, memory_bytes=7), ME, 1, False),
    ("and it has the memory", replace(OTHER, memory_bytes=8), ME, 1, True),
    ("but it is this worker itself", replace(OTHER, id=ME.id), ME, 1, False),
    ("for at most fifteen seconds", OTHER, replace(ME, load_seconds=60), AFFINITY_SECONDS, False),
    ("until then", OTHER, replace(ME, load_seconds=60), AFFINITY_SECONDS - 0.1, True),
    ("for as long as loading takes here", OTHER, replace(ME, load_seconds=2), 2, False),
    ("no longer", OTHER, replace(ME, load_seconds=2), 1.9, True),
]


@pytest.mark.parametrize(
    ("other", "me", "waited", "left"), [case[1:] for case in AFFINITY], ids=[case[0] for case in AFFINITY]
)
def test_a_lane_is_left_to_the_worker_that_has_its_checkpoint(other, me, waited, left):
    waiting = replace(lane(waited=waited), needs=8)
    farm = Farm(NOW, workers=(me, other))

    assert rank([waiting], farm, me) == ([] if left else [waiting])


def test_after_adds_a_claim_to_what_its_owner_runs():
    farm = Farm(NOW, {"ann": served(50, running=10)})

    assert farm.after({"ann": 5}, {"ann": 1}).owners["ann"] == Owner(running=15, served_at=NOW, images=1)
    assert farm.after({"new": 5}, {"new": 2}).owners["new"] == Owner(running=5, served_at=NOW, images=2)
    assert farm.owners == {"ann": served(50, running=10)}


def test_an_owner_with_as_many_images_as_may_run_at_once_is_left_out_and_holds_nobody_up():
    """Neither age, priority nor urgency helps; what it has running before the others' turn changes nothing for them."""
    full = [lane("ann", waited=9000, priority=9, head=1), lane("ann", urgent=True, head=2, checkpoint=B)]
    others = [lane("bob", waited=20, head=3), lane("cem", waited=10, head=4)]
    owners = {"ann": replace(served(9000), images=2, most=2), "bob": served(2), "cem": served(1)}

    assert rank(full + others, Farm(NOW, owners), ME) == others
    room = owners | {"ann": replace(owners["ann"], most=3)}
    assert rank(full + others, Farm(NOW, room), ME) == [full[1], full[0], *others]
    assert rank(full + others, Farm(NOW, room).after({"ann": 5}, {"ann": 1}), ME) == others, (
        "the room is taken by a claim"
    )


@pytest.mark.parametrize(("most", "images", "left_out"), [(None, 99, False), (1, 0, False), (0, 0, True), (2, 3, True)])
def test_a_limit_of_running_images_is_kept_exactly(most, images, left_out):
    farm = Farm(NOW, {"ann": Owner(images=images, most=most)})
    assert rank([lane()], farm, ME) == ([] if left_out else [lane()])


names = st.sampled_from([f"owner-{number}" for number in range(8)])
owners = st.builds(
    Owner,
    running=st.integers(0, 10_000),
    served_at=st.none() | st.floats(NOW - 1e6, NOW, allow_nan=False),
)
limited = st.builds(replace, owners, images=st.integers(0, 4), most=st.none() | st.integers(0, 4))
lanes = st.builds(
    lane,
    owner=names,
    waited=st.floats(0, 1e5),
    head=st.integers(1, 10**9),
    checkpoint=st.sampled_from([A, B]),
    priority=st.integers(-5, 5),
)


@settings(deadline=None)
@given(
    st.lists(lanes, min_size=1, max_size=20),
    st.dictionaries(names, owners),
    st.data(),
)
def test_an_owner_with_nothing_running_is_served_within_as_many_claims_as_owners_wait(waiting, known, data):
    """Backlogs never dry up, images may end at any moment: the newcomer's turn comes within R claims nevertheless."""
    newcomer = data.draw(st.sampled_from(sorted({lane.owner for lane in waiting})))
    farm = Farm(NOW, known | {newcomer: replace(known.get(newcomer, Owner()), running=0)})
    claims = 0
    while True:
        claims += 1
        first = rank(waiting, farm, ME)[0]
        if first.owner == newcomer:
            break
        farm = replace(farm.after({first.owner: data.draw(st.integers(1, 5000))}, {first.owner: 1}), now=farm.now + 1)
        if data.draw(st.booleans()):  # what it was given has ended already
            farm = replace(farm, owners=farm.owners | {first.owner: replace(farm.owners[first.owner], running=0)})

    assert claims <= len({lane.owner for lane in waiting})


@settings(deadline=None)
@given(st.lists(lanes, min_size=1, max_size=20), st.dictionaries(names, limited), st.data())
def test_limits_of_running_images_change_nothing_of_the_turns_of_others(waiting, known, data):
    """Owners with room are served as if those at their limit were not there, and nobody passes theirs."""
    farm = Farm(NOW, known)
    for _ in range(30):
        ranked = rank(waiting, farm, ME)
        served = [lane for lane in waiting if not farm.owner(lane.owner).is_full]
        assert ranked == rank(served, replace(farm, owners={n: replace(o, most=None) for n, o in known.items()}), ME)
        if not ranked:
            break
        first = ranked[0].owner
        farm = farm.after({first: data.draw(st.integers(1, 5000))}, {first: 1})
        known = dict(farm.owners)
        assert farm.owner(first).most is None or farm.owner(first).images <= farm.owner(first).most


@settings(deadline=None)
@given(st.lists(lanes, max_size=20, unique_by=lambda lane: lane.head), st.dictionaries(names, owners), st.randoms())
def test_rank_loses_no_lane_and_does_not_depend_on_their_order(waiting, known, random):
    farm = Farm(NOW, known)
    shuffled = random.sample(waiting, len(waiting))

    assert rank(waiting, farm, ME) == rank(shuffled, farm, ME)
    assert sorted(map(repr, rank(waiting, farm, ME))) == sorted(map(repr, waiting))
