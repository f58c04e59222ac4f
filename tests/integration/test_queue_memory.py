"""What images need of a card's memory, and who is asked to render them for it."""

from __future__ import annotations

import pytest

from shared.db.tables import Worker
from shared.models import memory
from shared.models.memory import estimate
from shared.queue import snapshot
from shared.queue.explainer import Outlook
from tests.integration.queueing import Farmhand

DEMO = "c" * 64
GB = 10**9


@pytest.fixture
def hand(sessions) -> Farmhand:
    return Farmhand(sessions)


@pytest.mark.parametrize(
    ("size", "architecture", "weights"),
    [
        pytest.param(50_000_000, "sd1", 50_000_000, id="a small one"),
        pytest.param(2_130_000_000, "sd1", 2_130_000_000, id="in half precision"),
        pytest.param(4_270_000_000, "sd1", 2_140_000_000, id="in single precision"),
        pytest.param(7_700_000_000, "sd1", 2_140_000_000, id="with averages besides"),
        pytest.param(6_900_000_000, None, 6_900_000_000, id="of a kind that is not known"),
    ],
)
def test_weights_are_estimated_as_a_card_holds_them(size, architecture, weights):
    assert estimate(size, architecture, 0) == weights
    smaller, larger = (estimate(size, architecture, memory_class) - weights for memory_class in (12, 14))
    assert 50_000_000 < smaller < 500_000_000, "512 x 512"
    assert larger == 4 * smaller, "1024 x 1024"


def test_what_was_measured_takes_the_estimates_place_and_the_most_counts(hand, checkpoint_factory):
    checkpoint_factory("demo", sha256=DEMO, size=2 * GB)
    places = [(DEMO, 12), (DEMO, 14), ("d" * 64, 12)]
    known = hand.run(memory.needs, places)
    assert known == {place: estimate(2 * GB, "sd1", place[1]) for place in places[:2]}, "nothing is known of the third"

    for measured in (1 * GB, 3 * GB, 2 * GB):
        hand.run(memory.note, (DEMO, 12), measured)
    assert hand.run(memory.needs, places) == known | {(DEMO, 12): 3 * GB}


def test_an_image_goes_to_a_worker_with_the_memory_for_it(hand, job_factory, checkpoint_factory):
    checkpoint_factory("demo", sha256=DEMO, size=2 * GB)
    hand.run(memory.note, (DEMO, 6), 6 * GB)
    small, large = hand.worker(), hand.worker()
    small.beat(memory_bytes=4 * GB)
    large.beat(memory_bytes=8 * GB)
    job_factory()

    assert {lane.needs for lane in hand.run(snapshot.take).lanes} == {6 * GB}
    assert small.claim() is None
    assert large.claim() is not None


def test_memory_that_was_told_once_stays(hand, sessions):
    worker = hand.worker()
    worker.beat(memory_bytes=8 * GB)
    worker.beat()
    with sessions() as session:
        assert session.get_one(Worker, worker.id).memory_bytes == 8 * GB


def test_farm_of_cpus_asks_for_no_memory(hand, job_factory, checkpoint_factory):
    checkpoint_factory("demo", sha256=DEMO, size=200 * GB)
    worker = hand.worker()
    worker.beat()
    job_factory()
    assert [lane.needs for lane in hand.run(snapshot.take).lanes] == [None]
    assert worker.claim() is not None


def test_job_says_what_memory_it_waits_for(hand, job_factory, checkpoint_factory, sessions, redis_url):
    checkpoint_factory("demo", sha256=DEMO, size=2 * GB)
    hand.run(memory.note, (DEMO, 6), 12_300_000_000)
    for offered in (4 * GB, 8 * GB):
        hand.worker().beat(memory_bytes=offered)
    job = job_factory()
    outlook = Outlook(sessions, redis_url)
    told = outlook.of(job.id)
    outlook.close()
    assert told.cause == "memory"
    assert told.text == ("It needs a card with about 12.3 GB of memory, and the largest of a living worker has 8.0 GB.")
