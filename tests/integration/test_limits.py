"""Limits of an owner: what is too much is refused, with what is left, and no part of it is recorded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import func, select

from shared.db.tables import Image, Job
from tests.support.queueing import Farmhand

JOBS = "/api/v1/jobs"
JOB = {"prompt": "sea", "checkpoint": "demo", "width": 64, "height": 64, "steps": 2}


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"api_keys": {"anns-long-key": "ann"}, "user_limits": "queued=10"})


@pytest.fixture(autouse=True)
def _checkpoint(checkpoint_factory):
    checkpoint_factory("demo", native_size=64)


@pytest.fixture
def ask(app):
    """Submits a job of the owner `ann`, each time as a browser of its own, and returns the answer."""

    def asked(given=JOB, path=JOBS, **headers):
        return app.test_client().post(path, json=given, headers={"X-API-Key": "anns-long-key", **headers})

    return asked


def recorded(sessions, what=Job):
    with sessions() as session:
        return session.scalar(select(func.count()).select_from(what))


def fields(answer):
    return {one["field"]: (one["message"], one["accepted"]) for one in answer.get_json()["errors"]}


def test_of_fifty_submissions_at_once_as_many_are_accepted_as_there_is_room_for(ask, sessions):
    barrier = Barrier(50)

    def submit(_):
        barrier.wait(60)
        return ask().status_code

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(submit, range(50)))

    assert sorted(answers) == [202] * 10 + [422] * 40
    assert recorded(sessions) == recorded(sessions, Image) == 10


def test_a_job_with_more_images_than_may_wait_is_refused_whole_with_what_is_left(ask, sessions):
    assert ask(JOB | {"count": 7}).status_code == 202
    answer = ask(JOB | {"count": 4})
    assert answer.status_code == 422
    assert fields(answer) == {
        "limits.queued": (
            "7 images of yours of at most 10 wait, so there is no room for 4 more",
            "3 images or fewer now, and more as images of yours start",
        )
    }
    assert recorded(sessions, Image) == 7
    assert ask(JOB | {"count": 3}).status_code == 202


def test_images_that_run_wait_no_more(ask, sessions):
    ask(JOB | {"count": 10})
    worker = Farmhand(sessions).worker()
    assert ask().status_code == 422
    assert worker.claim()
    assert ask().status_code == 202


def test_a_request_that_comes_again_under_its_key_takes_no_room(ask):
    first = ask(JOB | {"count": 10}, **{"Idempotency-Key": "mine"})
    again = ask(JOB | {"count": 10}, **{"Idempotency-Key": "mine"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.get_json()["id"] == again.get_json()["id"]


def test_images_that_are_queued_again_need_room_too(ask):
    job = ask(JOB | {"count": 6}).get_json()["id"]
    assert ask(path=f"{JOBS}/{job}/cancel").status_code == 200
    assert ask(JOB | {"count": 7}).status_code == 202
    assert [*fields(ask(path=f"{JOBS}/{job}/retry"))] == ["limits.queued"]
    assert ask(path=f"{JOBS}/{job}/images/0/retry").status_code == 200


def test_a_sweep_says_beforehand_that_it_is_too_much(ask, sessions):
    sweep = {"axes": [{"field": "steps", "values": "1-20(+1)"}]}
    preview = ask(JOB | {"sweep": sweep}, path="/api/v1/sweeps/preview").get_json()
    assert [one["field"] for one in preview["problems"]] == ["limits.queued"]
    assert [*fields(ask(JOB | {"sweep": sweep}))] == ["limits.queued"]
    assert recorded(sessions) == 0
