"""The memory that images need of a card, and which workers are asked to render them."""

from __future__ import annotations

import pytest

from shared.db.tables import MemoryNeed, Worker
from shared.models import memory
from shared.models.components import Component, recorded
from shared.models.memory import Footprint, Needs, estimate
from shared.models.model_set import ModelSet
from shared.queue import snapshot
from shared.queue.explainer import Explainer
from tests.support.queueing import Farmhand

DEMO = "c" * 64
PLAIN = Footprint(DEMO, "", 6)
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


def test_networks_whose_numbers_are_known_are_estimated_in_the_precision_of_the_card(hand, checkpoint_factory):
    stored = {"unet": {"float8_e4m3fn": 4 * GB, "float32": 4000}, "vae": {"float16": 2 * GB}}
    networks = {name: Component(None, formats) for name, formats in stored.items()}
    checkpoint_factory("demo", sha256=DEMO, size=7 * GB, weights_sha256="w", components=recorded(networks, "w"))
    checkpoint_factory("other", sha256="e" * 64, size=GB, weights_sha256="w", components=recorded(networks, "older"))
    working = memory.working_bytes(12)
    first, other = Footprint(DEMO, "", 12), Footprint("e" * 64, "", 12)
    assert hand.run(memory.needs, [first, other]) == {
        first: Needs(10 * GB + 2000 + working, 20 * GB + 4000 + working),
        other: Needs(GB + working, GB + working),
    }


def test_the_latest_measurement_takes_the_estimates_place_in_its_precision(hand, checkpoint_factory):
    checkpoint_factory("demo", sha256=DEMO, size=2 * GB)
    first, larger, unknown = Footprint(DEMO, "", 12), Footprint(DEMO, "", 14), Footprint("d" * 64, "", 12)
    least = {one: estimate(2 * GB, "sd1", one.memory_class) for one in (first, larger)}
    known = hand.run(memory.needs, [first, larger, unknown])
    assert known == {one: Needs(bytes_, bytes_) for one, bytes_ in least.items()}, "nothing is known of the third"

    for measured in (1 * GB, 3 * GB, 2 * GB):
        hand.run(memory.book, first, measured)
    assert hand.run(memory.needs, [first, larger]) == known | {first: Needs(2 * GB, least[first])}
    hand.run(memory.book, first, 5 * GB, "single")
    assert hand.run(memory.needs, [first]) == {first: Needs(2 * GB, 5 * GB)}


def test_what_a_version_before_booked_for_a_checkpoint_counts_no_more(hand, checkpoint_factory):
    """It was the most of all jobs of that checkpoint, those with a refiner among them."""
    checkpoint_factory("demo", sha256=DEMO, size=2 * GB)
    before = hand.run(memory.needs, [PLAIN])
    hand.run(lambda session: session.add(MemoryNeed(digest=DEMO, memory_class=6, bytes=70 * GB)))
    assert hand.run(memory.needs, [PLAIN]) == before


def test_an_image_goes_to_a_worker_with_the_memory_for_it(hand, job_factory, checkpoint_factory):
    checkpoint_factory("demo", sha256=DEMO, size=2 * GB)
    hand.run(memory.book, PLAIN, 6 * GB)
    small, large = hand.worker(), hand.worker()
    small.heartbeat(memory_bytes=4 * GB)
    large.heartbeat(memory_bytes=8 * GB)
    job_factory()

    assert {lane.needs for lane in hand.run(snapshot.take).lanes} == {6 * GB}
    assert small.claim() is None
    assert large.claim() is not None


def test_what_a_refiner_takes_keeps_no_plain_image_from_a_small_card(hand, job_factory, checkpoint_factory):
    checkpoint_factory("demo", sha256=DEMO, size=2 * GB)
    refined = ModelSet(checkpoint=DEMO, refiner="e" * 64)
    hand.run(memory.book, Footprint(DEMO, refined.companions, 6), 6 * GB)
    small, large = hand.worker(), hand.worker()
    small.heartbeat(memory_bytes=4 * GB)
    large.heartbeat(memory_bytes=8 * GB)
    first = job_factory(models=refined, count=2)
    plain = job_factory(models=ModelSet(checkpoint=DEMO))

    assert small.claim().job_id == plain.id
    assert small.claim() is None
    assert large.claim().job_id == first.id


def test_what_a_worker_in_single_precision_takes_keeps_no_other_from_the_image(hand, job_factory, checkpoint_factory):
    checkpoint_factory("demo", sha256=DEMO, size=2 * GB)
    hand.run(memory.book, PLAIN, 9 * GB, "single")
    half, single = hand.worker(), hand.worker()
    half.heartbeat(memory_bytes=4 * GB, precision="half")
    single.heartbeat(memory_bytes=8 * GB, precision="single")
    job_factory(count=2)

    assert single.claim() is None
    assert half.claim() is not None
    hand.run(memory.book, PLAIN, 7 * GB, "single")
    assert single.claim() is not None, "it was measured again"


def test_the_same_checkpoint_twice_is_resident_once():
    assert ModelSet(checkpoint=DEMO, refiner=DEMO, hires=DEMO).companions == ModelSet(checkpoint=DEMO).companions == ""
    one, other = ModelSet(checkpoint=DEMO, refiner="e" * 64), ModelSet(checkpoint=DEMO, hires="e" * 64, vae="f" * 64)
    assert one.companions == other.companions != ""


def test_memory_that_was_told_once_stays(hand, sessions):
    worker = hand.worker()
    worker.heartbeat(memory_bytes=8 * GB)
    worker.heartbeat()
    with sessions() as session:
        assert session.get_one(Worker, worker.id).memory_bytes == 8 * GB


def test_farm_of_cpus_asks_for_no_memory(hand, job_factory, checkpoint_factory):
    checkpoint_factory("demo", sha256=DEMO, size=200 * GB)
    worker = hand.worker()
    worker.heartbeat()
    job_factory()
    assert [lane.needs for lane in hand.run(snapshot.take).lanes] == [None]
    assert worker.claim() is not None


def test_job_says_what_memory_it_waits_for(hand, job_factory, checkpoint_factory, sessions, redis_url):
    checkpoint_factory("demo", sha256=DEMO, size=2 * GB)
    hand.run(memory.book, PLAIN, 12_300_000_000)
    for offered in (4 * GB, 8 * GB):
        hand.worker().heartbeat(memory_bytes=offered)
    job = job_factory()
    explainer = Explainer(sessions, redis_url)
    told = explainer.explain(job.id)
    explainer.close()
    assert told.cause == "memory"
    assert told.text == (
        "It needs a card with about 11.5 GB of memory in half precision, "
        "and the largest of a living worker with that precision has 7.5 GB."
    )
