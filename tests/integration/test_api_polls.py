"""Polls of one job: what has not changed is not read again, and every change is seen by the next poll."""

from __future__ import annotations

import pytest
from sqlalchemy import func, update

from api.services import EXTENSION
from api.use_cases import polls
from shared.accounts.principal import LOCAL, Role
from shared.db.sessions import transact
from shared.db.tables import Picture
from shared.messaging.events import Progress
from shared.queue import transitions, versions
from tests.support.keys import headers_of
from tests.support.queueing import Farmhand
from tests.support.statements import statements


@pytest.fixture(scope="module")
def app(standing_app):
    return standing_app


@pytest.fixture(scope="module")
def sent(app):
    """The headers of each owner's key."""
    return headers_of(app.extensions[EXTENSION].sessions, {"root": Role.ADMIN, "ann": Role.USER, "bob": Role.USER})


@pytest.fixture
def poll(client, sent):
    def ask(path, who="ann", status=200, **headers):
        answer = client.get(path, headers=sent[who] | headers)
        assert answer.status_code == status, answer.get_json()
        return answer.get_json() if status != 304 else None

    return ask


@pytest.fixture
def submitted(client, sent):
    """Submits jobs of ann's, which do not outlive the test."""
    made = []

    def submit(count=1, **options):
        given = {"prompt": "sea", "steps": 2, "count": count, **options}
        made.append(client.post("/api/v1/jobs", json=given, headers=sent["ann"]).get_json()["links"])
        return made[-1]["self"]

    yield submit
    for links in made:
        client.post(links["cancel"], headers=sent["ann"])


@pytest.fixture
def hand(services):
    return Farmhand(services.sessions)


def number(path):
    return int(path.rpartition("/")[2])


def test_job_that_has_not_changed_is_one_question(services, poll, submitted, monkeypatch):
    monkeypatch.setattr(polls, "_WAITING_SECONDS", 3600.0)
    path = submitted(count=4, pool="nobody-renders-here")
    first = poll(path)

    with statements(services.sessions) as asked:
        again = poll(path)

    of_keys = [statement for statement in asked if "api_keys" in statement or "owner_limits" in statement]
    (alone,) = (statement for statement in asked if statement not in of_keys)
    assert "xmin" in alone
    assert again == first
    assert first["waiting"]["code"] == "no_worker"


def test_what_another_process_does_is_seen_by_the_next_poll(services, poll, submitted, hand):
    path = submitted(count=2)
    seen = [poll(path)["state"]]

    worker = hand.worker()
    ours = worker.claim()
    seen.append(poll(path)["state"])
    hand.run(transitions.finish, ours, 9)
    seen.append(poll(path)["counts"]["succeeded"])
    hand.run(transitions.finish, worker.claim(), 9)
    ended = poll(path)
    seen.append(ended["state"])

    assert seen == ["queued", "running", 1, "succeeded"]
    gone = update(Picture).where(Picture.job_id == number(path)).values(deleted_at=func.now())
    transact(services.sessions, lambda session: session.execute(gone))
    assert all(image["deleted_at"] for image in poll(path)["images"])
    hand.run(transitions.delete, LOCAL.scope, number(path))
    poll(path, status=404)


def test_kept_job_is_its_owners(poll, submitted, monkeypatch):
    monkeypatch.setattr(polls, "_WAITING_SECONDS", 3600.0)
    path = submitted()
    assert poll(path) == poll(path, "root")
    poll(path, "bob", 404)
    tag = {"If-None-Match": "*"}
    poll(path, "bob", 404, **tag)
    poll(path, **tag, status=304)


def test_progress_of_what_runs_is_not_kept(services, poll, submitted, hand):
    path = submitted()
    ours = hand.worker().claim()
    assert poll(path)["images"][0]["step"] == 0

    services.events.publish(Progress(number(path), 0, ours.attempt, step=1, steps=2, phase="rendering"))
    assert services.events.flush()
    assert poll(path)["images"][0]["step"] == 1
    hand.run(transitions.finish, ours, 9)


def test_kept_job_is_told_without_waiting_for_those_that_are_read(services, poll, submitted, monkeypatch):
    path = submitted()
    first = poll(path)
    monkeypatch.setattr(services.kept_jobs, "turn", None)  # of a job that is read somewhere, and shares the turn
    assert poll(path) == first


def test_why_it_waits_is_asked_again_after_a_while(poll, submitted, hand, monkeypatch):
    monkeypatch.setattr(polls, "_WAITING_SECONDS", -1.0)
    first, second = submitted(), submitted()
    assert poll(second)["position"] == 1
    hand.run(transitions.cancel, LOCAL.scope, number(first))
    assert poll(second)["position"] == 0


def test_job_of_many_images_is_read_each_time(poll, submitted, hand, monkeypatch):
    monkeypatch.setattr(versions, "MOST_IMAGES", 1)
    path = submitted(count=2)
    assert poll(path)["state"] == "queued"
    hand.run(transitions.cancel, LOCAL.scope, number(path))
    assert poll(path)["state"] == "cancelled"
