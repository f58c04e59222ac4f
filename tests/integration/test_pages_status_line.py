"""What the pages say about the farm: its workers, its storage, and what to do where it is not well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.app import create_app
from api.services import EXTENSION
from shared.queue import reaper
from shared.queue.workers import ResidentModel
from tests.support.browsing import look
from tests.support.queueing import Farmhand


def test_no_worker_alive_is_told_with_the_command_that_starts_one(client):
    for path in ("/", "/workers"):
        shown = look(client, path)
        assert "No worker is alive" in shown.text
        assert "farm worker" in shown.text


def test_worker_is_shown_with_its_phase_and_checkpoints_by_name(client, sessions, checkpoint_factory):
    demo = checkpoint_factory("demo")
    worker = Farmhand(sessions).worker()
    worker.heartbeat(phase="loading checkpoint, about 8 s", resident=[demo.sha256, "f" * 64])
    shown = look(client, "/workers")
    assert "1 worker ready · nothing waits" in shown.text
    assert "host/cpu:1 loading checkpoint, about 8 s" in shown.text
    assert "0 of 8 slots in use" in shown.text
    assert "demo" in shown.text
    assert "ffffffffff" in shown.text


def test_worker_is_shown_with_the_models_in_its_memory_the_largest_first(client, sessions, checkpoint_factory):
    demo, ink = checkpoint_factory("demo"), checkpoint_factory("ink", kind="lora")
    worker = Farmhand(sessions).worker()
    assert "no model yet" in look(client, "/workers").text
    small = [ResidentModel("lora", ink.sha256, 3 * 2**20), ResidentModel("upscaler", "f" * 64, 2**20)]
    worker.heartbeat(models=[*small, ResidentModel("merged", demo.sha256, 2**31)], resident=[demo.sha256])
    shown = look(client, "/workers").text
    assert "demo with merged adapters, 2.0 GB ink LoRA, 3.0 MB ffffffffff upscaler, 1.0 MB" in shown
    [told] = client.get("/api/v1/workers").get_json()["workers"]
    assert told["models"][1] == {"name": "ink", "kind": "lora", "sha256": ink.sha256, "bytes": 3 * 2**20}


def test_a_worker_tells_the_largest_of_very_many_models(client, sessions):
    worker = Farmhand(sessions).worker()
    worker.heartbeat(models=[ResidentModel("lora", f"{number:064}", number) for number in range(1000)])
    [told] = client.get("/api/v1/workers").get_json()["workers"]
    assert [one["bytes"] for one in told["models"]] == [*range(999, 935, -1)]


def test_workers_that_died_lately_are_told_with_how_often_of_what_and_the_next_try(client, sessions):
    hand = Farmhand(sessions)
    assert "Died in the last hour" not in look(client, "/workers").text
    for reason in ("its process was ended by SIGSEGV", "its process hung for 93 s in decode and was killed"):
        worker = Farmhand(sessions).worker()
        hand.run(reaper.mark_dead, worker.id, reason=reason, crashed=True, remark="started again after 2 s")
    shown = look(client, "/workers").text
    assert f"{worker.name}, 2 times," in shown
    assert "its process hung for 93 s in decode and was killed; started again after 2 s" in shown
    [told] = client.get("/api/v1/workers").get_json()["ended"]
    assert (told["name"], told["times"]) == (worker.name, 2)


def test_storage_tells_its_size_and_room(client, services):
    services.storage.put("jobs/000/1/1-0000-1.png", b"x" * 4096)
    shown = look(client, "/workers")
    assert "of pictures" in shown.text
    assert "free" in shown.text


@pytest.fixture
def without_redis(settings) -> Iterator[object]:
    app = create_app(settings.model_copy(update={"redis_url": "unix:///nowhere/redis.sock"}))
    yield app.test_client()
    app.extensions[EXTENSION].close()


def test_redis_away_is_told_and_jobs_are_still_taken(without_redis, sessions):
    Farmhand(sessions).worker()
    assert "Redis does not answer: what runs is finished" in look(without_redis, "/").text


def test_workers_that_wait_for_the_storage_say_so_on_the_form_and_on_their_page(client, sessions):
    worker = Farmhand(sessions).worker()
    worker.heartbeat(state="drained", phase="the storage takes no pictures: the disk is full")
    for path in ("/", "/workers"):
        shown = look(client, path).text
        assert "The storage takes no pictures: the disk is full. Finished pictures wait, nothing is lost" in shown
    assert "host/cpu:1 the storage takes no pictures: the disk is full" in shown
    assert "farm resume" not in shown


def test_workers_whose_cards_cannot_be_used_are_named_beside_those_that_render(client, sessions):
    broken, sound = (Farmhand(sessions).worker() for _ in range(2))
    sound.heartbeat()
    reason = "its card cannot be used: the NVIDIA driver is too old"
    broken.heartbeat(state="drained", phase=reason, trouble=reason)
    assert f"{broken.name} cannot use its card. See why" in look(client, "/").text
    shown = look(client, "/workers").text
    assert f"unusable CPU {broken.name} {reason}" in shown
    Farmhand(sessions).worker().heartbeat(state="drained", phase=reason, trouble=reason)
    assert "2 workers cannot use their cards. See why" in look(client, "/").text


def test_a_person_who_pauses_a_worker_is_named_before_its_trouble(client, sessions):
    worker = Farmhand(sessions).worker()
    worker.heartbeat(state="drained", phase="its card cannot be used: x", trouble="its card cannot be used: x")
    client.post("/api/v1/workers/host%2Fcpu:1/drain?reason=new+fan")
    shown = look(client, "/workers").text
    assert "new fan" in shown
    assert "paused" in shown
