"""Whatever dies, and whenever: no image is lost, doubled or stuck. Twenty plans of trouble; `make chaos` runs more."""

from __future__ import annotations

from itertools import product

import pytest

from tests.chaos.lanes import running
from tests.chaos.plans import STORAGE_OUTAGES, Kind, make
from tests.chaos.points import POINTS
from tests.support.servers import folder_in_memory

pytestmark = pytest.mark.alone
SEEDS = range(20)
OUTAGE_SECONDS = 3.0


@pytest.fixture(scope="module")
def reports(request, tmp_path_factory):
    """The report of each plan whose test was selected, to come."""
    seeds = [item.callspec.params["seed"] for item in request.session.items if "reports" in item.fixturenames]
    with (
        folder_in_memory(tmp_path_factory.mktemp("chaos")) as folder,
        running(seeds, folder, outage_seconds=OUTAGE_SECONDS) as reports,
    ):
        yield reports


@pytest.mark.timeout(900)  # seconds, where the machine has nothing else to do
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_stuck(seed, reports):
    report = reports[seed].result()
    assert not report.problems, f"{report}\nreplay: make chaos PLANS=1 SEED={seed}"


def test_the_plans_have_every_trouble_and_every_crash_point():
    plans = [make(seed) for seed in SEEDS]
    assert {plan.point for plan in plans} == set(POINTS)  # a plan fails that does not hit its own
    assert {action.kind for plan in plans for action in plan.actions} == set(Kind)


@pytest.mark.parametrize("first", [0, 4711, 500_249_321])
def test_more_than_a_third_of_the_plans_have_a_storage_outage_of_twenty_seconds(first):
    plans = [make(seed) for seed in range(first, first + 60)]
    long = [[one for one in plan.actions if one.kind in STORAGE_OUTAGES and one.seconds >= 20] for plan in plans]
    assert sum(map(bool, long)) >= 20
    assert {one.kind for actions in long for one in actions} == set(STORAGE_OUTAGES)


def test_a_fifth_of_the_plans_have_storage_and_database_away_together():
    def is_meanwhile(database, storage):
        return storage.at <= database.at and database.at + database.seconds <= storage.at + storage.seconds

    plans = [make(seed).actions for seed in SEEDS]
    outages = [[one for one in plan if one.kind in STORAGE_OUTAGES and one.seconds >= 20] for plan in plans]
    killed = [[one for one in plan if one.kind == Kind.KILL_POSTGRES and one.seconds == 2] for plan in plans]
    together = [any(is_meanwhile(*both) for both in product(*pair)) for pair in zip(killed, outages, strict=True)]
    assert sum(together) >= len(SEEDS) // 5


def test_a_plan_is_the_same_each_time():
    assert str(make(7)) == str(make(7))
    assert str(make(7)) != str(make(8))
