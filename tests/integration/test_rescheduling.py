"""The scheduling of a job is changed while images of it wait: by API, on its page, and while workers claim."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from api.services import EXTENSION
from shared.accounts.scope import EVERYBODYS
from shared.db.tables import History
from shared.errors import Conflict
from shared.params.render import RenderParams
from shared.queue import reaper, rescheduling, transitions
from shared.queue.rescheduling import Change
from shared.queue.submit import submit
from tests.support.admissions import admission
from tests.support.browsing import look, send
from tests.support.queueing import Farmhand, Workhand

PARAMS = RenderParams(prompt="sea", checkpoint="demo [cccccccccc]", width=64, height=64, seed=7)
LATER = "2999-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def hand(standing_app) -> Farmhand:
    return Farmhand(standing_app.extensions[EXTENSION].sessions)


@pytest.fixture(scope="module")
def client(standing_app):
    return standing_app.test_client()


@pytest.fixture
def job(hand):
    """A job of three images, of which the first runs; it is gone afterwards."""
    job_id = hand.run(submit, admission("local", PARAMS.model_copy(update={"count": 3}), priority=100)).job.id
    worker = hand.worker()
    assert worker.claim().job_id == job_id
    yield job_id
    worker.mark_dead()
    hand.run(transitions.cancel, EVERYBODYS, job_id)


def test_what_waits_changes_its_lane_and_what_runs_goes_on(client, hand, job):
    answer = client.patch(f"/api/v1/jobs/{job}", json={"pool": "large", "priority": -5, "expires_at": LATER})
    body = answer.get_json()
    assert (answer.status_code, body["images"]) == (200, 2)
    assert (body["job"]["pool"], body["job"]["priority"], body["job"]["counts"]["running"]) == ("large", -5, 1)
    assert body["job"]["expires_at"] == LATER
    images = hand.images(job)
    assert [(image.state, image.pool, image.priority) for image in images] == [
        ("running", "large", -5), ("queued", "large", -5), ("queued", "large", -5),
    ]  # fmt: skip
    assert {image.expires_at for image in images} == {datetime(2999, 1, 1, tzinfo=UTC)}
    large = hand.worker(pool="large")
    assert large.claim().index == 1
    assert hand.worker().claim() is None
    large.mark_dead()


def test_an_image_that_comes_back_goes_where_its_job_goes_now(hand, job):
    hand.run(rescheduling.change, EVERYBODYS, job, Change(pool="large"), by="ann")
    [running] = [image for image in hand.images(job) if image.worker_id]
    hand.run(reaper.mark_dead, running.worker_id, reason="gone", crashed=False)
    assert {image.pool for image in hand.images(job) if image.state == "queued"} == {"large"}


def test_one_field_leaves_the_others_as_they_are(client, hand, job):
    client.patch(f"/api/v1/jobs/{job}", json={"expires_at": LATER, "pool": "large"})
    assert client.patch(f"/api/v1/jobs/{job}", json={"priority": 7}).status_code == 200
    row = hand.job(job)
    assert (row.pool, row.priority, row.expires_at.year) == ("large", 7, 2999)
    client.patch(f"/api/v1/jobs/{job}", json={"expires_at": None})
    assert {image.expires_at for image in hand.images(job)} == {None}
    changed = select(History.detail).where(History.job_id == job, History.event == "changed").order_by(History.id)
    said = list(hand.run(lambda session: session.scalars(changed).all()))
    assert said == ["pool large, deadline 2999-01-01 00:00 UTC", "priority 7", "no deadline"]


def test_it_is_held_and_released(client, hand, job):
    assert client.patch(f"/api/v1/jobs/{job}", json={"hold": True}).get_json()["job"]["counts"]["held"] == 2
    assert client.patch(f"/api/v1/jobs/{job}", json={"hold": True, "priority": 1}).status_code == 200
    assert client.patch(f"/api/v1/jobs/{job}", json={"hold": False}).get_json()["job"]["counts"]["queued"] == 2


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({}, ["body"]),
        ([1], ["body"]),
        ({"priority": 101, "pool": "no pool!"}, ["pool", "priority"]),
        ({"prompt": "moon"}, ["prompt"]),
        ({"hold_until": LATER, "priority": "high"}, ["priority", "hold_until"]),
        ({"expires_at": "2000-01-01T00:00:00Z"}, ["expires_at"]),
        ({"pool": None}, ["pool"]),
        ({"hold": True, "after": [1]}, ["hold"]),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_changes_nothing(client, hand, job, given, fields):
    before = hand.job(job)
    answer = client.patch(f"/api/v1/jobs/{job}", json=given)
    assert (answer.status_code, sorted(one["field"] for one in answer.get_json()["errors"])) == (422, sorted(fields))
    after = hand.job(job)
    assert (after.pool, after.priority, after.expires_at) == (before.pool, before.priority, before.expires_at)


def test_a_deadline_before_the_end_of_its_hold_is_refused(client, hand):
    job_id = hand.run(submit, admission("local", PARAMS, hold_until="2998-01-01T00:00:00Z")).job.id
    early = client.patch(f"/api/v1/jobs/{job_id}", json={"expires_at": "2997-01-01T00:00:00Z"})
    [problem] = early.get_json()["errors"]
    assert (early.status_code, problem["field"]) == (422, "expires_at")
    assert "hold_until" in problem["message"]
    assert hand.job(job_id).expires_at is None
    released = {"expires_at": "2997-01-01T00:00:00Z", "hold": False}
    assert client.patch(f"/api/v1/jobs/{job_id}", json=released).status_code == 200
    hand.run(transitions.cancel, EVERYBODYS, job_id)


def test_a_deadline_beside_a_dependency_that_takes_the_place_of_a_hold_is_not_refused(client, hand):
    first = hand.run(submit, admission("local", PARAMS)).job.id
    job_id = hand.run(submit, admission("local", PARAMS, hold_until="2998-01-01T00:00:00Z")).job.id
    behind = client.patch(f"/api/v1/jobs/{job_id}", json={"expires_at": "2997-01-01T00:00:00Z", "after": [first]})
    assert behind.status_code == 200
    hand.run(transitions.cancel, EVERYBODYS, first)
    hand.run(transitions.cancel, EVERYBODYS, job_id)


def test_a_job_of_which_nothing_waits_cannot_be_changed(client, hand):
    job_id = hand.run(submit, admission("local", PARAMS)).job.id
    hand.run(transitions.cancel, EVERYBODYS, job_id)
    answer = client.patch(f"/api/v1/jobs/{job_id}", json={"priority": 1})
    assert (answer.status_code, "it is cancelled" in answer.get_json()["detail"]) == (409, True)
    assert hand.job(job_id).priority == 0
    assert client.patch("/api/v1/jobs/999999", json={"priority": 1}).status_code == 404
    assert not look(client, f"/jobs/{job_id}").all("form", action=f"/jobs/{job_id}/change")


def test_only_what_waits_is_cancelled(client, hand, job):
    body = client.post(f"/api/v1/jobs/{job}/cancel?waiting=true").get_json()
    assert (body["images"], body["job"]["counts"]["running"], body["job"]["state"]) == (2, 1, "running")
    again = client.post(f"/api/v1/jobs/{job}/cancel?waiting=true")
    assert again.status_code == 409


def test_the_page_changes_it(client, hand, job):
    page = look(client, f"/jobs/{job}")
    assert page.value("priority") == "100"
    fields = {"priority": "3", "pool": "large", "expires_at": "2999-01-01T00:00"}
    send(client, f"/jobs/{job}/change", **fields)
    row = hand.job(job)
    assert (row.priority, row.pool, row.expires_at) == (3, "large", datetime(2999, 1, 1, tzinfo=UTC))
    send(client, f"/jobs/{job}/change", **fields)
    assert "Nothing was changed." in look(client, f"/jobs/{job}").text
    send(client, f"/jobs/{job}/change", priority="1000", pool="large", expires_at="")
    assert "priority" in look(client, f"/jobs/{job}").text
    assert hand.job(job).expires_at is not None
    send(client, f"/jobs/{job}/cancel", waiting="")
    assert [image.state for image in hand.images(job)] == ["running", "cancelled", "cancelled"]


def test_the_form_takes_over_what_failed(client, hand):
    job_id = hand.run(submit, admission("local", PARAMS.model_copy(update={"count": 4}), priority=100)).job.id
    worker = hand.worker()
    claims = [worker.claim() for _ in range(4)]
    for claim in (claims[1], claims[2]):
        hand.run(transitions.fail, claim, "no")
    for claim in (claims[0], claims[3]):
        hand.finish(claim)
    link = f"/?from={job_id}&failed=1"
    assert look(client, f"/jobs/{job_id}").all("a", href=link)
    page = look(client, link)
    assert (page.value("seed"), page.value("count")) == ("8", "2")


def test_changes_while_workers_claim_neither_lose_nor_double_an_image(hand):
    images = 60
    job_id = hand.run(submit, admission("zoe", PARAMS.model_copy(update={"count": images}), pool="one")).job.id
    workers = [hand.worker(pool=pool, slots=200) for pool in ("one", "two", "one", "two")]
    end = time.monotonic() + 20
    taken: list[tuple[int, int]] = []

    def claim_all(worker: Workhand) -> None:
        while len(taken) < images and time.monotonic() < end:
            if claim := worker.claim():
                taken.append((claim.image_id, claim.attempt))

    def move() -> None:
        for turn in range(20):
            with suppress(Conflict):  # all are claimed already
                hand.run(
                    rescheduling.change,
                    EVERYBODYS,
                    job_id,
                    Change(pool=("two", "one")[turn % 2], priority=turn),
                    by="zoe",
                )

    with ThreadPoolExecutor(5) as threads:
        for running in [*(threads.submit(claim_all, worker) for worker in workers), threads.submit(move)]:
            running.result(30)
    assert len({image for image, _ in taken}) == len(taken) == images
    assert {attempt for _, attempt in taken} == {1}
    assert {image.state for image in hand.images(job_id)} == {"running"}
    assert hand.job(job_id).unfinished == images
