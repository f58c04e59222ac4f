"""What a worker tells the farm of its card's memory, on a card whose figures the test sets."""

from __future__ import annotations

import pytest

from shared.db.sessions import connect, transact
from shared.db.sessions import sessions as sessions_of
from shared.db.tables import Worker
from shared.models import memory
from shared.models.memory import Footprint, Needs
from tests.support.workers import TICKET, made
from worker.dispatch.claimer import Claimer
from worker.dispatch.heartbeat import Heartbeat
from worker.engine import devices
from worker.render.memory_meter import MemoryMeter

PLACE = Footprint("c" * 64, "", 12)
WEIGHTS = 2000


class Peak:
    """A peak of what the test says."""

    taken = 0
    before = WEIGHTS

    @classmethod
    def since_now(cls, on: devices.Device) -> Peak | None:
        return cls() if on.kind == "cuda" else None

    def total_bytes(self) -> int:
        return WEIGHTS + self.taken


@pytest.fixture
def meter(sessions, monkeypatch):
    monkeypatch.setattr("worker.render.memory_meter.MemoryPeak", Peak)
    return MemoryMeter(devices.Device("cuda:0", "cuda", "a card", 10_000), sessions)


@pytest.fixture
def noted(sessions):
    return lambda: transact(sessions, lambda session: memory.needs(session, [PLACE])).get(PLACE, Needs()).half


def measure(meter: MemoryMeter, taken: int) -> None:
    Peak.taken = taken
    with meter.image(PLACE, WEIGHTS):
        pass


def test_the_most_that_an_image_took_is_noted_with_its_weights(meter, noted):
    measure(meter, 500)
    assert noted() == 2500
    measure(meter, 300)
    assert noted() == 2500
    measure(meter, 900)
    assert noted() == 2900


def test_what_was_too_much_once_comes_down_when_the_next_images_take_less(meter, noted):
    measure(meter, 900)
    for taken in (300, 500, 500, 300, 300, 500, 300):
        measure(meter, taken)
        assert noted() == 2900, "one that took less may be smaller than its class allows"
    measure(meter, 400)
    assert noted() == 2500


def test_a_worker_that_starts_anew_corrects_what_another_told(meter, sessions, noted):
    measure(meter, 900)
    measure(MemoryMeter(devices.Device("cuda:0", "cuda", "a card", 10_000), sessions), 300)
    assert noted() == 2300


@pytest.mark.parametrize(("other", "own"), [(9_000, 500), (300, 900)])
def test_a_figure_of_another_worker_is_corrected_by_the_images_of_one_that_lives(
    sessions, noted, monkeypatch, other, own
):
    monkeypatch.setattr("worker.render.memory_meter.MemoryPeak", Peak)
    clock, card = [1000.0], devices.Device("cuda:0", "cuda", "a card", 10_000)
    living = MemoryMeter(card, sessions, clock=lambda: clock[0])
    measure(living, own)
    measure(MemoryMeter(card, sessions), other)
    booked: list[int] = []
    book = memory.book
    monkeypatch.setattr(memory, "book", lambda *args, **named: booked.append(named["measured"]) or book(*args, **named))
    for _ in range(5):
        measure(living, own)
    assert not booked, "a steady figure costs no statement for each image"
    clock[0] += 60
    for _ in range(5):
        measure(living, own)
    assert booked == [own + WEIGHTS]
    assert noted() == own + WEIGHTS


def test_two_workers_that_take_turns_keep_their_figure_current(sessions, noted, monkeypatch):
    monkeypatch.setattr("worker.render.memory_meter.MemoryPeak", Peak)
    clock, card = [0.0], devices.Device("cuda:0", "cuda", "a card", 10_000)
    large, small = (MemoryMeter(card, sessions, clock=lambda: clock[0]) for _ in range(2))
    for taken in (500, 900, 500, 500, 500, 500, 500, 500, 500, 500):
        measure(large, taken)
        measure(small, 400)
        clock[0] += 61
    assert noted() == 2400
    measure(large, 500)
    assert noted() == 2500, "the latest measurement counts"


def test_what_a_worker_takes_in_single_precision_is_booked_apart(sessions, noted, monkeypatch):
    monkeypatch.setattr("worker.render.memory_meter.MemoryPeak", Peak)
    measure(MemoryMeter(devices.Device("cuda:0", "cuda", "a card", 10_000), sessions, "single"), 900)
    assert noted() is None
    assert transact(sessions, lambda session: memory.needs(session, [PLACE]))[PLACE].single == 2900


def test_a_card_that_could_do_an_image_is_asked_for_the_next_of_its_kind(sessions, noted, monkeypatch):
    monkeypatch.setattr("worker.render.memory_meter.MemoryPeak", Peak)
    measure(MemoryMeter(devices.Device("cuda:0", "cuda", "a card", 10_000), sessions, offers=9_000), 7_500)
    assert noted() == 9_000


def test_what_had_company_is_not_noted(meter, noted):
    Peak.taken = 700
    with meter.image(PLACE, WEIGHTS), meter.other():
        pass
    with meter.other(), meter.image(PLACE, WEIGHTS):
        pass
    with meter.image(PLACE, WEIGHTS), meter.image(PLACE, WEIGHTS):
        pass
    assert noted() is None
    measure(meter, 700)
    assert noted() == 2700, "the company is gone"


def test_what_failed_is_not_noted_and_disturbs_nobody_after_it(meter, noted):
    Peak.taken = 700
    with pytest.raises(ZeroDivisionError), meter.image(PLACE, WEIGHTS):
        raise ZeroDivisionError
    assert noted() is None
    measure(meter, 500)
    assert noted() == 2500


def test_cpu_notes_nothing(sessions, noted):
    with MemoryMeter(devices.device("cpu"), sessions).image(PLACE, WEIGHTS):
        pass
    assert noted() is None


def test_a_database_that_is_away_costs_a_measurement_and_no_image(monkeypatch):
    monkeypatch.setattr("worker.render.memory_meter.MemoryPeak", Peak)
    engine = connect("postgresql+psycopg://nobody@/nothing?host=/nowhere")
    measure(MemoryMeter(devices.Device("cuda:0", "cuda", "a card", 10_000), sessions_of(engine)), 500)
    engine.dispose()


def test_worker_offers_its_memory_and_claims_only_what_it_holds(settings, sessions, job_factory):
    with made(settings, sessions) as worker:
        worker.card.memory_bytes = 4000
        Heartbeat(worker, on_dead=lambda: pytest.fail("was declared dead")).run_once()
        with sessions() as session:
            assert session.get_one(Worker, worker.id).memory_bytes == 4000
        job_factory()
        transact(sessions, lambda session: memory.book(session, PLACE._replace(memory_class=6), 4001))
        assert Claimer(worker).next(TICKET).claim is None
        worker.card.memory_bytes = 4001
        assert Claimer(worker).next(TICKET).claim is not None


def test_images_in_flight_need_what_such_images_took_and_before_that_an_estimate(monkeypatch, sessions):
    monkeypatch.setattr("worker.render.memory_meter.MemoryPeak", Peak)
    card = devices.Device("cuda:0", "cuda", "a card", 10**9)
    meter = MemoryMeter(card, sessions, resident_bytes=lambda: WEIGHTS)
    assert meter.working_bytes() == 0, "nothing is in flight, and nothing was measured"
    with meter.in_flight(PLACE):
        assert meter.working_bytes() == memory.working_bytes(PLACE.memory_class)
        measure(meter, 500)
        assert meter.working_bytes() == 500
        with meter.in_flight(PLACE._replace(memory_class=14)):
            assert meter.working_bytes() == memory.working_bytes(14)
    Peak.taken = 800
    with meter.image(PLACE, WEIGHTS), meter.image(PLACE, WEIGHTS):
        pass
    assert meter.working_bytes() == 800, "in company images need more than each alone"
    for _ in range(64):
        measure(meter, 300)
    assert meter.working_bytes() == 300


def test_models_that_leave_or_come_during_an_image_are_no_need_of_it(monkeypatch, sessions, noted):
    monkeypatch.setattr("worker.render.memory_meter.MemoryPeak", Peak)
    card, residents = devices.Device("cuda:0", "cuda", "a card", 10**9), [1500]
    meter = MemoryMeter(card, sessions, resident_bytes=lambda: residents[0])
    Peak.taken = 100
    with meter.image(PLACE, WEIGHTS):
        residents[0] = 300
        meter.residents_changed()
        Peak.taken = -900
    assert meter.working_bytes() == 800, "2100 - 1500, and then 1100 - 300"
    assert noted() == WEIGHTS + 300, "500 beside the models were there before"
    with meter.image(PLACE, WEIGHTS):
        residents[0] = 9000
        with meter.other():
            Peak.taken = 9500
        Peak.taken = 7400
        meter.residents_changed()
    assert meter.working_bytes() == 800, "the load of a model is no need"
