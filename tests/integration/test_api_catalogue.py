"""What the farm has, over HTTP."""

from __future__ import annotations

from shared.samplers import SAMPLERS, SCHEDULES
from tests.integration.queueing import Farmhand
from tests.waiting import until


def test_checkpoints_are_listed_with_why_some_cannot_be_used(client, checkpoint_factory):
    checkpoint_factory("good", native_size=256, sha256="ab" * 32)
    checkpoint_factory("torn", usable=False, reason="The file is cut off.", sha256=None, architecture=None)
    good, torn = client.get("/api/v1/checkpoints").get_json()["checkpoints"]
    assert (good["title"], good["native_size"], good["usable"]) == ("good [ababababab]", 256, True)
    assert (torn["title"], torn["usable"], torn["reason"]) == ("torn", False, "The file is cut off.")


def test_samplers_and_schedules_are_listed(client):
    samplers = client.get("/api/v1/samplers").get_json()["samplers"]
    schedules = client.get("/api/v1/schedules").get_json()["schedules"]
    assert [sampler["name"] for sampler in samplers] == list(SAMPLERS)
    assert {name for sampler in samplers for name in sampler["schedules"]} == set(SCHEDULES)
    assert [schedule["name"] for schedule in schedules] == list(SCHEDULES)


def test_workers_are_listed_with_what_they_do(client, sessions, job_factory):
    job_factory()
    worker = Farmhand(sessions).worker(slots=8)
    claim = worker.claim()
    worker.beat({claim.image_id: claim.attempt}, phase="loading checkpoint, about 8 s", resident=["ab" * 32])
    (told,) = client.get("/api/v1/workers").get_json()["workers"]
    assert (told["name"], told["slots"], told["running"]) == (worker.name, 8, 1)
    assert told["phase"] == "loading checkpoint, about 8 s"
    assert told["resident"] == ["ab" * 32]
    assert told["is_late"] is False


def test_rescan_asks_the_workers(client, services):
    asked = []
    services.events.listen_rescans(lambda: asked.append(1))
    assert client.post("/api/v1/checkpoints/rescan").status_code == 202
    until(lambda: asked, what="the order to reach a worker")
