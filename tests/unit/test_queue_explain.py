"""Why an image waits, as a table of small farms; the clock of all of them stands at NOW."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.db.states import WorkerState
from shared.queue.estimates import Struck
from shared.queue.explain import Cause, RecentWork, Waiter, explain
from shared.queue.missing_files import MissingFile
from shared.queue.policy import AFFINITY_SECONDS, Farm, Lane, Owner, Worker
from shared.queue.snapshot import COUNTED, Snapshot

NOW = 1_000_000.0
A, B = "a" * 64, "b" * 64
DIED = "A worker died while it rendered this image, and each worker renders one such image at a time"


def lane(
    owner="ann", *, head=1, waited=100.0, checkpoint=A, pool="default", urgent=False, cost=100, queued=1, needs=None
):
    return Lane(owner, checkpoint, pool, 6, urgent, 0, head, NOW - waited, cost, queued, needs, companions="")


def worker(number=1, state="ready", *, free=0, resident=(), pool="default", load=None, memory=None):
    name = f"host/cuda:{number}"
    return Worker(number, (pool,), WorkerState(state), frozenset(resident), free, load, name, memory)


def explained(waiter=None, *workers, lanes=(), owners=None, **recent):
    waiter = waiter or Waiter(0, lane())
    snapshot = Snapshot((waiter.lane, *lanes), Farm(NOW, owners or {}, workers))
    return explain(waiter, snapshot, RecentWork(**recent))


def lacking(need, precision, of_pool, largest):
    needs = f"It needs a card with about {need} of memory in {precision} precision"
    return f"{needs}, and the largest of a living worker{of_pool} with that precision has {largest}."


PUT = "Put the file that it was submitted with into"


def absent(kind, name):
    return MissingFile(kind, name, A, " is on no machine")


CASES = [
    ("held", Waiter(3, lane(), held="held by ann"), [worker(free=1)], "held", "It is held by ann."),
    ("no worker at all", None, [], "no_worker", "No worker is alive."),
    (
        "none of its pool",
        Waiter(0, lane(pool="big")),
        [worker(free=1)],
        "no_worker",
        "No worker of the pool big is alive.",
    ),
    (
        "one of its pool, which serves others too",
        Waiter(0, lane(pool="big")),
        [replace(worker(free=1), pools=("default", "big"))],
        "next",
        "It is next: host/cuda:1 has room for it.",
    ),
    (
        "its checkpoint is gone",
        Waiter(0, lane(), missing=[absent("checkpoint", "demo")]),
        [worker(free=1)],
        "no_checkpoint",
        f"Its checkpoint cannot be loaded: demo is on no machine. {PUT} the models folder (FARM_MODELS).",
    ),
    (
        "an adapter is gone",
        Waiter(0, lane(), missing=[absent("lora", "ink")]),
        [worker(free=1)],
        "no_model",
        f"Its LoRA cannot be loaded: ink is on no machine. {PUT} the folder Lora of the models folder (FARM_MODELS).",
    ),
    (
        "an adapter is gone while no worker is alive",
        Waiter(0, lane(), missing=[absent("lora", "ink")]),
        [],
        "no_worker",
        "No worker is alive.",
    ),
    (
        "no worker has the memory",
        Waiter(0, lane(needs=9_100_000_000)),
        [worker(1, memory=4 * 10**9), worker(2, free=1, memory=8 * 10**9)],
        "memory",
        lacking("8.5 GB", "half", "", "7.5 GB"),
    ),
    (
        "no worker has the memory, and the nearest is in single precision",
        Waiter(0, replace(lane(needs=6 * 2**30), needs_single=12 * 2**30)),
        [worker(1, memory=3 * 2**30), replace(worker(2, memory=10 * 2**30), precision="single")],
        "memory",
        lacking("12.0 GB", "single", "", "10.0 GB"),
    ),
    (
        "no worker has the memory, and the nearest is in half precision",
        Waiter(0, replace(lane(needs=6 * 2**30, pool="big"), needs_single=12 * 2**30)),
        [
            replace(worker(1, memory=10 * 2**30, pool="big"), precision="single"),
            worker(2, memory=5 * 2**30, pool="big"),
            worker(3, memory=4 * 2**30, pool="big"),
        ],
        "memory",
        lacking("6.0 GB", "half", " of the pool big", "5.0 GB"),
    ),
    (
        "only a worker that takes nothing has the memory",
        Waiter(0, lane(needs=9_100_000_000)),
        [worker(1, free=1, memory=4 * 10**9), worker(2, "drained", memory=24 * 10**9)],
        "drained",
        "host/cuda:2 takes nothing new: black pictures.",
    ),
    (
        "the one with the memory is full",
        Waiter(0, lane(needs=9_100_000_000)),
        [worker(1, free=1, memory=4 * 10**9), worker(2, memory=24 * 10**9), worker(3, free=1, memory=1)],
        "slot",
        "It is next, and waits for a slot: host/cuda:2 is full.",
    ),
    (
        "all are coming up",
        None,
        [worker(1, "starting"), worker(2, "starting"), worker(3, "drained")],
        "starting",
        "host/cuda:1 and host/cuda:2 are still starting.",
    ),
    (
        "all are drained",
        None,
        [worker(1, "drained"), worker(2, "draining")],
        "drained",
        "host/cuda:1 and host/cuda:2 take nothing new: black pictures.",
    ),
    (
        "another has its checkpoint",
        Waiter(0, lane(waited=3)),
        [worker(1, free=1), worker(2, free=1, resident=[A]), worker(3, free=1, load=5.0)],
        "left_alone",
        "Its checkpoint is loaded on host/cuda:2: others leave it alone for at most 2 s more.",
    ),
    ("a worker has room", None, [worker(1), worker(2, free=3)], "next", "It is next: host/cuda:2 has room for it."),
    (
        "it is next, and all are full",
        None,
        [worker(1), worker(2)],
        "slot",
        "It is next, and waits for a slot: host/cuda:1 and host/cuda:2 are full.",
    ),
    (
        "it is next on a large farm",
        None,
        [worker(number) for number in range(1, 40)],
        "slot",
        "It is next, and waits for a slot: all 39 workers are full.",
    ),
    (
        "every worker is too old",
        Waiter(0, lane(), unread={"host/cuda:1": "hires.foo", "host/cuda:2": "hires.foo"}),
        [worker(1, free=1), worker(2)],
        "newer_version",
        "It needs a worker of a newer version: host/cuda:1 and host/cuda:2 do not know hires.foo.",
    ),
    (
        "one is too old, and the other full",
        Waiter(0, lane(), unread={"host/cuda:1": "hires.foo"}),
        [worker(1, free=1), worker(2)],
        "slot",
        "It is next, and waits for a slot: host/cuda:2 is full.",
    ),
    (
        "one that a worker died of, and each is at another such",
        Waiter(0, lane(), struck=Struck(running={"host/cuda:1": 3.0, "host/cuda:2": 3.0})),
        [worker(1, free=1), worker(2, free=5)],
        "struck",
        f"{DIED}: host/cuda:1 and host/cuda:2 are at another one.",
    ),
    (
        "one that a worker died of, and others stand before it",
        Waiter(7, lane(), ahead=7, struck=Struck(7, 700, {"host/cuda:1": 3.0})),
        [worker(1, free=1)],
        "struck",
        f"{DIED}: 7 of the same owner go first.",
    ),
    (
        "one that a worker died of, and another worker is free of such",
        Waiter(0, lane(), struck=Struck(running={"host/cuda:1": 3.0})),
        [worker(1, free=1), worker(2, free=1)],
        "next",
        "It is next: host/cuda:2 has room for it.",
    ),
    (
        "one that a worker died of, and the free one is full",
        Waiter(0, lane(), struck=Struck(running={"host/cuda:1": 3.0})),
        [worker(1, free=1), worker(2)],
        "slot",
        "It is next, and waits for a slot",
    ),
    (
        "its owner's others go first",
        Waiter(1, lane(head=9), ahead=1200),
        [worker()],
        "own_images",
        "1,200 images of the same owner go first.",
    ),
    (
        "one goes first",
        Waiter(1, lane(head=9), ahead=1),
        [worker()],
        "own_images",
        "1 image of the same owner goes first.",
    ),
    (
        "more than were counted",
        Waiter(1, lane(head=9), ahead=1000, is_far=True),
        [worker()],
        "own_images",
        "More than 1,000 images of the same owner go first.",
    ),
]


@pytest.mark.parametrize(
    ("waiter", "workers", "cause", "text"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_reason(waiter, workers, cause, text):
    told = explained(waiter, *workers, drains={"host/cuda:2": "black pictures"})
    assert told.cause == cause
    assert told.text.startswith(text)
    assert told.index == (waiter.index if waiter else 0)
    assert told.position == (None if cause == "held" else waiter.ahead if waiter else 0)


def test_it_is_the_turn_of_owners_with_less_running_work():
    busy = {"ann": Owner(500, NOW), "bob": Owner(100, NOW), "cem": Owner(0), "dan": Owner(900, NOW)}
    others = [lane("bob", head=2), lane("cem", head=3), lane("dan", head=4)]
    told = explained(None, worker(), lanes=others, owners=busy)
    assert told.cause == Cause.OTHER_OWNERS
    assert told.text.startswith("It is the turn of 2 other owners first")


@pytest.mark.parametrize(
    ("urgent", "others", "text"),
    [
        (False, [lane("bob", head=2, urgent=True)], "Urgent images of another owner go first."),
        (
            False,
            [lane("bob", head=2, urgent=True), lane("cem", head=3, urgent=True)],
            "Urgent images of 2 other owners go first.",
        ),
        (
            False,
            [lane("bob", head=2, urgent=True), lane("cem", head=3)],
            "Urgent images of another owner go first, and it is the turn of another owner.",
        ),
        (
            True,
            [lane("bob", head=2, urgent=True), lane("cem", head=3)],
            "It is the turn of another owner first: all of those with urgent images have their share.",
        ),
        (True, [lane("bob", head=2)], "It is next"),
    ],
)
def test_urgent_images_of_others_are_told_apart_from_their_turn(urgent, others, text):
    busy = {"ann": Owner(500, NOW), "bob": Owner(100, NOW), "cem": Owner(100, NOW)}
    assert explained(Waiter(0, lane(urgent=urgent)), worker(), lanes=others, owners=busy).text.startswith(text)


def test_an_urgent_image_that_is_younger_than_the_snapshot_does_not_wait_for_its_owner_s_turn():
    waiter = Waiter(0, lane(head=7, urgent=True))
    lanes = (lane(head=1), lane("bob", head=2))
    snapshot = Snapshot(lanes, Farm(NOW, {"ann": Owner(500, NOW), "bob": Owner(1, NOW)}, (worker(),)))
    assert explain(waiter, snapshot, RecentWork()).cause == Cause.SLOT


def test_an_owner_with_as_many_images_as_may_run_waits_for_one_of_these():
    busy = {"ann": Owner(500, NOW, images=2, most=2)}
    told = explained(None, worker(), lanes=[lane("bob", head=2)], owners=busy)
    assert (told.cause, told.estimate_seconds) == (Cause.OWN_LIMIT, None)
    assert told.text == "Its owner has 2 images running, and no more than 2 may run at once."


def test_the_worker_that_would_take_it_first_is_asked():
    """A worker that has its checkpoint lets it pass before an owner that is ahead by little."""
    busy = {"ann": Owner(110, NOW), "bob": Owner(100, NOW)}
    others = [lane("bob", head=2, checkpoint=B)]
    assert explained(None, worker(1), lanes=others, owners=busy).cause == Cause.OTHER_OWNERS
    assert explained(None, worker(1), worker(2, resident=[A]), lanes=others, owners=busy).cause == Cause.SLOT


def test_what_is_younger_than_the_snapshot_is_explained_too():
    waiter = Waiter(0, lane(head=7))
    snapshot = Snapshot((lane("bob", head=1),), Farm(NOW, {"bob": Owner(1, NOW)}, (worker(),)))
    assert explain(waiter, snapshot, RecentWork()).cause == Cause.SLOT


def test_left_alone_is_never_longer_than_affinity():
    homes = [worker(2, free=1, resident=[A])]
    told = explained(Waiter(0, lane(waited=0)), worker(1, free=1, load=60.0), *homes)
    assert (told.cause, told.estimate_seconds) == (Cause.LEFT_ALONE, AFFINITY_SECONDS)
    told = explained(Waiter(0, lane(waited=AFFINITY_SECONDS)), worker(1, free=1), *homes)
    assert told.cause == Cause.NEXT


RATES = {"host/cuda:1": 10.0, "host/cuda:2": 30.0}


@pytest.mark.parametrize(
    ("waiter", "lanes", "owners", "seconds"),
    [
        pytest.param(Waiter(0, lane()), [], {}, 100 / 40, id="one image until a slot is free"),
        pytest.param(Waiter(5, lane(head=9), ahead=5, ahead_cost=500), [], {}, 600 / 40, id="its owner's before it"),
        pytest.param(
            Waiter(5, lane(head=9), ahead=5, ahead_cost=500),
            [lane("bob", head=2, queued=3), lane("cem", head=3, queued=50)],
            {},
            (500 + 300 + 500 + 100) / 40,
            id="of each other owner at most as much",
        ),
        pytest.param(
            Waiter(900, lane(head=9), ahead=900, ahead_cost=90_000),
            [lane("bob", head=2, queued=COUNTED)],
            {},
            (90_000 * 2 + 100) / 40,
            id="a lane that was not counted to its end",
        ),
        pytest.param(
            Waiter(0, lane()),
            [lane("bob", head=2, queued=50)],
            {"ann": Owner(700, NOW), "bob": Owner(200, NOW)},
            (500 + 100) / 40,
            id="until the other has as much running",
        ),
        pytest.param(
            Waiter(0, lane()), [lane("bob", head=2, queued=8, urgent=True)], {}, 900 / 40, id="all that is urgent"
        ),
        pytest.param(
            Waiter(0, lane(urgent=True)),
            [lane("bob", head=2, queued=8)],
            {"ann": Owner(700, NOW)},
            100 / 40,
            id="urgent itself",
        ),
        pytest.param(
            Waiter(0, lane()),
            [lane("bob", head=2, queued=8, pool="other")],
            {"ann": Owner(700, NOW)},
            100 / 40,
            id="another pool",
        ),
    ],
)
def test_estimate(waiter, lanes, owners, seconds):
    told = explained(waiter, worker(1), worker(2), lanes=lanes, owners=owners, rates=RATES)
    assert told.estimate_seconds == pytest.approx(seconds, abs=0.1)


def test_a_worker_without_a_past_is_expected_to_be_like_the_others():
    told = explained(Waiter(0, lane(cost=4000)), worker(1), worker(2), worker(3), rates=RATES)
    assert told.estimate_seconds == pytest.approx(4000 / 60, abs=0.1)


def test_estimate_is_told_with_its_past_error():
    told = explained(Waiter(0, lane(cost=9600)), worker(1), worker(2), rates=RATES, error=1 / 3)
    assert told.text.endswith("It should start in about 4 min (lately off by a third).")
    assert (told.estimate_seconds, told.estimate_error) == (240.0, 0.33)


def test_without_a_past_there_is_no_estimate():
    told = explained(None, worker())
    assert (told.estimate_seconds, told.estimate_error) == (None, None)
    assert told.text.endswith("Nothing was rendered lately that an estimate could come from.")


@pytest.mark.parametrize(
    "name", ["held", "no worker at all", "its checkpoint is gone", "all are coming up", "more than were counted"]
)
def test_there_is_no_estimate_where_none_can_be(name):
    waiter, workers = next((case[1], case[2]) for case in CASES if case[0] == name)
    told = explained(waiter, *workers, rates=RATES, error=0.1)
    assert (told.estimate_seconds, told.estimate_error) == (None, None)
    assert "estimate" not in told.text
    assert "should start" not in told.text


def test_what_is_left_alone_starts_when_it_is_not_any_more():
    workers = [worker(1, free=1), worker(2, free=1, resident=[A])]
    slow = explained(Waiter(0, lane(waited=3)), *workers, rates={"host/cuda:1": 1.0})
    quick = explained(Waiter(0, lane(waited=3)), *workers, rates={"host/cuda:1": 100.0})
    assert slow.estimate_seconds == pytest.approx(AFFINITY_SECONDS - 3)
    assert quick.estimate_seconds == pytest.approx(0.5)


def test_a_redis_that_takes_nothing_is_told_unless_nobody_could_take_it_anyway():
    snapshot = Snapshot((lane(),), Farm(NOW, {}, (worker(free=1),)))
    told = explain(Waiter(0, lane()), snapshot, RecentWork(), "Redis is full")
    assert (told.cause, told.text, told.estimate_seconds) == (Cause.REDIS, "Redis is full.", None)
    empty = Snapshot((lane(),), Farm(NOW, {}, ()))
    assert explain(Waiter(0, lane()), empty, RecentWork(), "Redis is full").cause == Cause.NO_WORKER


def test_every_cause_has_a_case():
    shown = {case[3] for case in CASES} | {Cause.OTHER_OWNERS, Cause.OWN_LIMIT, Cause.REDIS}
    assert shown == set(Cause)


def test_explaining_changes_nothing():
    waiter, farm = Waiter(0, lane()), Farm(NOW, {}, (worker(),))
    snapshot = Snapshot((waiter.lane,), farm)
    explain(waiter, snapshot, RecentWork())
    assert snapshot == Snapshot((replace(waiter.lane),), farm)


PACES = {"host/cuda:1": 0.1, "host/cuda:2": 0.1}


@pytest.mark.parametrize(
    ("struck", "workers", "seconds"),
    [
        pytest.param(Struck(5, 500), 1, 50, id="one after the other"),
        pytest.param(Struck(5, 500), 2, 20, id="two at a time"),
        pytest.param(Struck(running={"host/cuda:1": 4.0}), 1, 6, id="behind one that has run for a while"),
        pytest.param(Struck(running={"host/cuda:1": 60.0}), 1, 2.5, id="behind one that takes longer than usual"),
        pytest.param(Struck(1, 100, {"host/cuda:1": 4.0, "host/cuda:2": 9.0}), 2, 6, id="as soon as one is free"),
    ],
)
def test_what_a_worker_died_of_is_estimated_one_by_one(struck, workers, seconds):
    waiter = Waiter(0, lane(cost=100), ahead=struck.ahead, ahead_cost=0, struck=struck)
    rates = dict.fromkeys(PACES, 40.0 / workers)
    told = explained(waiter, *(worker(number, free=3) for number in range(1, workers + 1)), rates=rates, paces=PACES)
    assert told.cause == Cause.STRUCK
    assert told.estimate_seconds == pytest.approx(seconds)


def test_of_many_missing_files_the_first_are_named_and_the_others_counted():
    waiter = Waiter(0, lane(), missing=[absent("lora", f"ink-{number}") for number in range(5)])
    told = explained(waiter, worker(free=1))
    assert told.text.count("cannot be loaded") == 3
    assert told.text.endswith("2 more model files are missing.")
    assert [file.name for file in told.missing] == [f"ink-{number}" for number in range(5)]
