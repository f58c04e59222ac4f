"""A job's events as a stream."""

from __future__ import annotations

import json
import threading

import pytest
from redis import Redis

from api.app import create_app
from api.http import sse
from api.services import EXTENSION
from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.maintenance import outbox
from shared.messaging.events import Events, ImageChanged, JobChanged, JobEnded, Progress
from shared.queue import queries, transitions
from tests.support import loops
from tests.support.queueing import Farmhand
from tests.support.waiting import until


@pytest.fixture
def job(job_factory):
    return job_factory()


@pytest.fixture
def events(redis_url, farm_id):
    """The events of another process."""
    made = Events(redis_url, farm_id)
    yield made
    made.close()


@pytest.fixture
def follow(client, job):
    """Opens a stream of the job and returns an iterator over its messages."""
    opened = []

    def messages(**headers: str):
        answer = client.get(f"/api/v1/jobs/{job.id}/events", headers=headers, buffered=False)
        opened.append(answer)
        assert answer.mimetype == "text/event-stream"
        return parsed(answer.response)

    yield messages
    for answer in opened:
        answer.close()


def parsed(chunks):
    for chunk in chunks:
        lines = [line.split(": ", 1) for line in chunk.decode().strip().splitlines()]
        fields = dict(line for line in lines if line[0])
        yield (fields["event"], fields["id"], json.loads(fields["data"])) if "event" in fields else chunk


def end(sessions, job):
    transact(sessions, lambda session: transitions.cancel(session, EVERYBODYS, job.id))


def test_stream_begins_with_the_jobs_state(follow, job):
    kind, _, data = next(follow())
    assert (kind, data) == ("job", {"job": job.id, "state": "queued"})


def test_stream_can_be_read_where_an_event_loop_runs_already(follow, job):
    async def first():
        return next(follow())

    assert loops.run(first())[2] == {"job": job.id, "state": "queued"}


def test_progress_comes_as_it_happens(follow, events, job):
    stream = follow()
    next(stream)
    events.publish(Progress(job.id, 0, 1, 3, 20, "steps"))
    kind, identifier, data = next(stream)
    assert kind == "progress"
    assert sse.event_id(identifier) == identifier
    assert data == {"job": job.id, "index": 0, "attempt": 1, "step": 3, "steps": 20, "phase": "steps"}


def test_stream_ends_with_the_job(follow, client, job):
    stream = follow()
    next(stream)
    client.post(f"/api/v1/jobs/{job.id}/cancel")
    rest = list(stream)
    assert rest[-1][0] == "end"
    assert rest[-1][2] == {"job": job.id, "state": "cancelled"}


def test_stream_of_a_job_that_has_ended_says_so_at_once(follow, sessions, job):
    end(sessions, job)
    assert [kind for kind, _, _ in follow()] == ["job", "end"]


def test_browser_that_comes_back_to_a_job_that_has_ended_is_told_to_stop(client, sessions, job):
    end(sessions, job)
    answer = client.get(f"/api/v1/jobs/{job.id}/events", headers={"Last-Event-ID": "0-0"})
    assert answer.status_code == 204


def test_what_was_missed_is_sent_again(follow, events, job):
    stream = follow()
    next(stream)
    events.publish(ImageChanged(job.id, 0, "running"))
    _, seen, _ = next(stream)
    for step in (1, 2):
        events.publish(Progress(job.id, 0, 1, step, 20, "steps"))
        assert events.flush()
    again = follow(**{"Last-Event-ID": seen})
    assert next(again)[0] == "job"
    assert [next(again)[2]["step"] for _ in range(2)] == [1, 2]


def test_news_after_what_was_sent_again_do_not_take_the_browser_back(follow, events, sessions, job, monkeypatch):
    monkeypatch.setattr(sse, "LOOK_SECONDS", 0.1)
    events.publish(ImageChanged(job.id, 0, "queued"))
    events.publish(ImageChanged(job.id, 0, "queued"))
    assert events.flush()
    first, second = (received.id for received in events.replay(job.id, "0-0"))
    again = follow(**{"Last-Event-ID": first})
    assert [next(again)[1] for _ in range(2)] == [first, second]
    end(sessions, job)
    assert {identifier for _, identifier, _ in again} == {second}


def test_following_a_job_never_reads_all_its_images(follow, events, job, monkeypatch):
    monkeypatch.setattr(queries, "job", lambda *_: pytest.fail("read every image"))
    stream = follow()
    next(stream)
    events.publish(ImageChanged(job.id, 0, "running"))
    events.publish(ImageChanged(job.id, 0, "succeeded"))
    assert [next(stream)[2]["state"] for _ in range(2)] == ["running", "succeeded"]


@pytest.mark.parametrize("header", ["nonsense", "1-1\u00e9", "-", "1-1; flushall", "9" * 50 + "-1"])
def test_last_event_id_that_is_none_of_ours_is_passed_over(follow, header):
    assert next(follow(**{"Last-Event-ID": header}))[0] == "job"


def test_other_jobs_events_do_not_come(follow, events, job, job_factory, client):
    other = job_factory()
    stream = follow()
    next(stream)
    events.publish(JobChanged(other.id, "running"))
    events.publish(ImageChanged(job.id, 0, "running"))
    assert next(stream)[2]["job"] == job.id


def test_past_the_cap_a_page_is_told_to_poll(settings, job):
    app = create_app(settings.model_copy(update={"max_streams": 3}))
    client, link = app.test_client(), f"/api/v1/jobs/{job.id}/events"
    open_ones = [client.get(link, buffered=False) for _ in range(3)]
    answer = client.get(link)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "poll" in answer.get_json()["detail"]
    for one in open_ones:
        one.close()
    answer = client.get(link, buffered=False)
    assert answer.status_code == 200
    answer.close()
    app.extensions[EXTENSION].close()


def test_one_owner_cannot_hold_all_streams(settings, job_factory):
    keys = {"anns-first-key": "ann", "anns-other-key": "ann", "bobs-only-key": "bob"}
    app = create_app(settings.model_copy(update={"api_keys": keys, "max_streams": 4}))
    links = {owner: f"/api/v1/jobs/{job_factory(owner=owner).id}/events" for owner in ("ann", "bob")}

    def opened(key: str):
        headers = {"Authorization": f"Bearer {key}"}
        return app.test_client().get(links[keys[key]], headers=headers, buffered=False)

    held = [opened("anns-first-key"), opened("anns-other-key")]
    refused = opened("anns-first-key")
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    held += [opened("bobs-only-key"), opened("bobs-only-key")]
    assert [one.status_code for one in held] == [200] * 4
    for one in held:
        one.close()
    app.extensions[EXTENSION].close()


def test_end_that_redis_did_not_tell_is_seen(follow, sessions, job, monkeypatch):
    monkeypatch.setattr(sse, "LOOK_SECONDS", 0.1)
    stream = follow()
    next(stream)
    end(sessions, job)
    assert [kind for kind, _, _ in stream] == ["job", "end"]


def test_silent_stream_shows_that_it_lives(follow, monkeypatch):
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0)
    stream = follow()
    next(stream)
    assert next(stream).startswith(b":")


def test_stream_of_a_deleted_job_ends(follow, sessions, job, monkeypatch):
    monkeypatch.setattr(sse, "LOOK_SECONDS", 0.1)
    stream = follow()
    next(stream)
    transact(sessions, lambda session: transitions.delete(session, EVERYBODYS, job.id))
    assert list(stream) == []


def test_stopping_server_lets_go_of_its_streams(follow, services):
    stream = follow()
    next(stream)
    ended = threading.Thread(target=list, args=[stream])
    ended.start()
    services.stopping.set()
    until(lambda: not ended.is_alive(), 5, "the stream to end")


def test_many_streams_are_one_subscription_of_redis(follow, redis_url, farm_id):
    streams = [follow() for _ in range(4)]
    for stream in streams:
        next(stream)
    with Redis.from_url(redis_url) as client:
        assert dict(client.pubsub_numsub(farm_id.key("events"))) == {farm_id.key("events").encode(): 1}


def test_running_image_shows_its_progress_in_the_job(client, events, job, sessions):
    claim = Farmhand(sessions).worker().claim()
    events.publish(Progress(job.id, 0, claim.attempt, 2, 4, "steps"))
    assert events.flush()
    body = client.get(f"/api/v1/jobs/{job.id}").get_json()
    assert body["state"] == "running"
    assert body["progress"] == 0.5
    (image,) = body["images"]
    assert (image["step"], image["steps"], image["phase"], image["progress"]) == (2, 4, "steps", 0.5)


def test_progress_is_of_the_calls_that_the_steps_take(client, events, job, sessions):
    claim = Farmhand(sessions).worker().claim()
    events.publish(Progress(job.id, 0, claim.attempt, 5, 10, "steps"))
    assert events.flush()
    (image,) = client.get(f"/api/v1/jobs/{job.id}").get_json()["images"]
    assert (image["step"], image["steps"], image["progress"]) == (5, 10, 0.5)


def test_progress_of_an_earlier_attempt_does_not_count(client, events, job, sessions):
    Farmhand(sessions).worker().claim()
    events.publish(Progress(job.id, 0, 99, 2, 4, "steps"))
    assert events.flush()
    assert client.get(f"/api/v1/jobs/{job.id}").get_json()["progress"] == 0


@pytest.fixture
def ends(client):
    """Opens a stream of the ends of all jobs and returns an iterator over its messages."""
    opened = []

    def messages(**headers: str):
        opened.append(client.get("/api/v1/events", headers=headers, buffered=False))
        return parsed(opened[-1].response)

    yield messages
    for answer in opened:
        answer.close()


def test_ends_of_an_owners_jobs_are_told_as_they_come_and_nobody_elses(ends, events, job_factory):
    stream = ends()
    assert next(stream)[0] == "hello"
    events.publish(JobEnded(7, 1, "ann", "failed"))
    events.publish(JobEnded(8, 2, "local", "succeeded"))
    events.publish(JobEnded(8, 2, "local", "succeeded"))
    events.publish(JobEnded(9, 3, "local", "failed"))
    assert [next(stream) for _ in range(2)] == [
        ("ended", "8", {"job": 2, "state": "succeeded"}),
        ("ended", "9", {"job": 3, "state": "failed"}),
    ]


def test_who_comes_back_is_told_what_ended_meanwhile(ends, sessions, job_factory):
    _, before, _ = next(ends())
    first, _, other = (job_factory(owner=owner) for owner in ("local", "ann", "local"))
    for job in (first, other):
        end(sessions, job)
    stream = ends(**{"Last-Event-ID": before})
    assert next(stream)[0] == "hello"
    assert [next(stream)[2]["job"] for _ in range(2)] == [first.id, other.id]


def test_end_that_commits_after_a_later_one_is_told_to_who_comes_back(ends, sessions, job_factory):
    hand = Farmhand(sessions)
    early, late = job_factory(), job_factory()
    worker = hand.worker()
    claims = {ours.job_id: ours for ours in (worker.claim(), worker.claim())}
    _, begun, _ = next(ends())
    with sessions() as slow:
        transitions.finish(slow, claims[early.id], 9)
        hand.finish(claims[late.id])
        stream = ends(**{"Last-Event-ID": begun})
        next(stream)
        _, place, told = next(stream)
        assert told["job"] == late.id
        slow.commit()
    found = hand.run(outbox.ends, EVERYBODYS, None)
    as_live = str(found.place.event)  # the id that an end has which comes as it happens
    for seen in (place, as_live):
        again = ends(**{"Last-Event-ID": seen})
        next(again)
        assert next(again)[2]["job"] == early.id


def test_stream_of_ends_is_over_after_a_while(ends, monkeypatch):
    monkeypatch.setattr(sse, "_ENDS_SECONDS", 0.0)
    assert [kind for kind, *_ in ends()] == ["hello"]
