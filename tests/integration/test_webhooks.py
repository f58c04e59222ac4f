"""Webhooks: a message for each end of a job, made once, signed, sent until it arrives, over the API and on the page."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from ipaddress import ip_network
from itertools import chain, cycle, product
from threading import Event, Thread

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from shared.accounts.scope import EVERYBODYS
from shared.db.tables import WebhookDelivery
from shared.errors import NotFound
from shared.maintenance import outbox
from shared.queue import transitions
from shared.webhooks import deliveries, endpoints, sending
from shared.webhooks.sending import Failure, Sent
from tests.support.browsing import look, page
from tests.support.browsing import send as send_form
from tests.support.queueing import Farmhand
from tests.support.receivers import Receiver, listening

LOOPBACK = (ip_network("127.0.0.0/8"),)
BASE = "https://farm.example"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening(made := Receiver()):
        yield made


@pytest.fixture
def farm(sessions):
    return Farmhand(sessions)


@pytest.fixture
def endpoint(farm):
    """Makes an endpoint of ann's."""

    def make(url=None, **given):
        return farm.run(endpoints.make, "ann", ({"url": url} if url else {}) | given, LOOPBACK)

    return make


@pytest.fixture
def ended(farm, job_factory):
    """Ends a job (of ann's) and hands its event to the consumer; returns its id."""

    def make(owner="ann", **options):
        job = job_factory(owner=owner, **options)
        farm.run(transitions.cancel, EVERYBODYS, job.id)
        hand_out(farm)
        return job.id

    return make


def hand_out(farm):
    return outbox.deliver(farm.sessions, [partial(deliveries.record, sessions=farm.sessions, base=BASE)], 20)


def send(farm, allowed=LOOPBACK):
    return sending.send_due(farm.sessions, allowed)


def run(farm, statement, **given):
    farm.run(lambda session: session.execute(text(statement), given))


def time_passes(farm, interval="2 hours"):
    run(
        farm,
        "UPDATE webhook_deliveries SET due_at = due_at - CAST(:by AS interval), "
        "give_up_at = give_up_at - CAST(:by AS interval)",
        by=interval,
    )


def rows(farm):
    with farm.sessions() as session:
        return list(session.query(WebhookDelivery).order_by(WebhookDelivery.id))


def verified(receiver, secret, at=-1):
    headers, body, _ = receiver.got[at]
    return Webhook(secret).verify(body, headers)


def test_end_of_a_job_is_one_signed_message_with_a_summary(farm, endpoint, job_factory, receiver):
    secret = endpoint(receiver.url).secret
    job = job_factory(owner="ann", count=2, prompt="the sea")
    worker = farm.worker()
    farm.finish(worker.claim())
    farm.run(transitions.fail, worker.claim(), "the card is broken")
    hand_out(farm)
    assert send(farm) == Sent(delivered=1)
    said = verified(receiver, secret)
    assert (said["type"], said["data"]["id"], said["data"]["state"]) == ("job.failed", job.id, "failed")
    assert said["data"]["counts"] == {"succeeded": 1, "failed": 1}
    assert said["data"]["reason"] == "the card is broken"
    assert said["data"]["prompt"] == "the sea"
    [picture] = said["data"]["pictures"]
    assert picture["links"]["picture"] == f"{BASE}/api/v1/jobs/{job.id}/images/0/picture.png"
    assert said["data"]["links"]["page"] == f"{BASE}/jobs/{job.id}"
    with pytest.raises(WebhookVerificationError):
        verified(receiver, endpoints.new_secret())


def test_event_that_is_delivered_twice_is_one_message_to_each_endpoint(farm, endpoint, ended, receiver):
    endpoint(receiver.url)
    endpoint(receiver.url)
    ended()
    run(farm, "UPDATE outbox SET delivered_at = NULL, due_at = now()")
    assert hand_out(farm).events == 1
    assert send(farm) == Sent(delivered=2)
    assert len(set(receiver.messages)) == len(receiver.got) == 2


def test_each_end_of_a_job_that_was_retried_is_told_as_it_was(farm, endpoint, job_factory, receiver):
    endpoint(receiver.url)
    job = job_factory(owner="ann")
    farm.run(transitions.cancel, EVERYBODYS, job.id)
    farm.run(transitions.retry, EVERYBODYS, job.id)
    farm.finish(farm.worker().claim())
    hand_out(farm)
    send(farm)
    assert [body["type"] for body in receiver.bodies] == ["job.cancelled", "job.succeeded"]


def test_only_the_owners_endpoints_that_ask_for_it_and_are_not_paused_are_told(farm, endpoint, ended, receiver):
    endpoint(receiver.url, kinds=["job.failed"])
    farm.run(endpoints.make, "bob", {"url": receiver.url}, LOOPBACK)
    paused = endpoint(receiver.url).endpoint
    farm.run(endpoints.change, "ann", paused.id, {"paused": True}, LOOPBACK)
    ended()
    assert send(farm) == Sent()


def test_job_that_was_deleted_is_told_by_its_number(farm, endpoint, job_factory, receiver):
    endpoint(receiver.url)
    job = job_factory(owner="ann")
    farm.run(transitions.cancel, EVERYBODYS, job.id)
    farm.run(transitions.delete, EVERYBODYS, job.id)
    hand_out(farm)
    send(farm)
    assert receiver.bodies[-1]["data"].keys() == {"id", "state", "ended_at"}


def test_url_of_a_job_is_told_with_the_secret_of_all_such(farm, job_factory, receiver):
    farm.run(endpoints.of_jobs, "ann")
    for _ in range(2):
        job = job_factory(owner="ann", scheduling={"webhook": receiver.url})
        farm.run(transitions.cancel, EVERYBODYS, job.id)
    [of_jobs] = farm.run(endpoints.every, "ann")
    secret = farm.run(endpoints.rotate, "ann", of_jobs.id).secret
    hand_out(farm)
    assert send(farm) == Sent(delivered=2)
    assert verified(receiver, secret)["data"]["id"] == job.id


def test_old_secret_signs_beside_the_new_one_for_a_day(farm, endpoint, ended, receiver):
    made = endpoint(receiver.url)
    new = farm.run(endpoints.rotate, "ann", made.endpoint.id).secret
    ended()
    send(farm)
    assert verified(receiver, made.secret) == verified(receiver, new)
    run(farm, "UPDATE webhook_endpoints SET old_until = now() - interval '1 second'")
    ended()
    send(farm)
    verified(receiver, new)
    with pytest.raises(WebhookVerificationError):
        verified(receiver, made.secret)


def test_message_whose_sender_died_before_it_recorded_that_it_arrived_is_sent_again(farm, endpoint, ended, receiver):
    endpoint(receiver.url)
    ended()
    assert sending.send(farm.run(deliveries.take), LOOPBACK) is None
    assert send(farm) == Sent(), "it may still be on its way"
    time_passes(farm, "61 seconds")
    assert send(farm) == Sent(delivered=1)
    assert receiver.messages == receiver.messages[:1] * 2


def test_receiver_that_is_away_costs_one_try_and_gets_all_when_it_is_back(farm, endpoint, ended):
    receiver = Receiver()
    with listening(receiver) as port:
        pass
    endpoint(receiver.url)
    jobs = [ended() for _ in range(4)]
    assert send(farm) == Sent(failed=1)
    with listening(receiver, port):
        assert send(farm) == Sent(), "none is due yet"
        run(farm, "UPDATE webhook_deliveries SET due_at = now() WHERE id = (SELECT min(id) FROM webhook_deliveries)")
        assert send(farm) == Sent(delivered=4)
    assert sorted(body["data"]["id"] for body in receiver.bodies) == jobs


def test_message_that_its_receiver_refuses_holds_up_no_other(farm, endpoint, ended, receiver):
    endpoint(receiver.url)
    ended()
    receiver.status = 500
    assert send(farm) == Sent(failed=1)
    receiver.status = 200
    ended()
    assert send(farm) == Sent(delivered=1)
    assert [row.reason for row in rows(farm)] == ["answered 500", None]


def test_pauses_between_tries_grow_to_an_hour_and_after_a_day_it_is_given_up(farm, endpoint, ended, receiver):
    endpoint(receiver.url)
    ended()
    receiver.status = 500
    assert [deliveries.pause_seconds(tries) for tries in (1, 2, 3, 10, 11, 99)] == [5, 10, 20, 2560, 3600, 3600]
    while not rows(farm)[0].dead_at:
        time_passes(farm)
        send(farm)
    assert rows(farm)[0].tries == 13
    assert send(farm) == Sent()


def test_what_was_given_up_is_sent_again_on_request_under_the_same_id(farm, endpoint, ended, receiver):
    made = endpoint(receiver.url).endpoint
    ended()
    ended()
    run(farm, "UPDATE webhook_deliveries SET dead_at = now(), tries = 13, give_up_at = now()")
    assert farm.run(deliveries.replay_dead, "ann", made.id) == 2
    assert send(farm) == Sent(delivered=2)
    again = farm.run(deliveries.replay, "ann", rows(farm)[0].id)
    assert again.state == "waiting"
    assert send(farm) == Sent(delivered=1)
    assert receiver.messages.count(again.message) == 2


def test_receiver_that_wants_no_more_is_paused(farm, endpoint, ended, receiver):
    made = endpoint(receiver.url).endpoint
    ended()
    receiver.status = 410
    assert send(farm) == Sent(failed=1, dead=1)
    assert farm.run(endpoints.find, "ann", made.id).paused


def test_receiver_says_how_long_to_wait(farm, endpoint, ended, receiver):
    endpoint(receiver.url)
    ended()
    receiver.status, receiver.headers = 503, {"Retry-After": "1800"}
    send(farm)
    time_passes(farm, "29 minutes")
    assert send(farm) == Sent()
    time_passes(farm, "2 minutes")
    assert send(farm) == Sent(failed=1)


def test_redirect_is_not_followed(farm, endpoint, ended, receiver):
    other = Receiver()
    with listening(other):
        endpoint(receiver.url)
        ended()
        receiver.status, receiver.headers = 307, {"Location": other.url}
        assert send(farm) == Sent(failed=1)
    assert other.got == []
    assert rows(farm)[0].reason == "answered 307, and redirects are not followed"


def test_address_is_looked_at_again_when_it_is_sent_to(farm, endpoint, ended, receiver, monkeypatch):
    """A name that leads outside when the webhook is made, and inside later."""
    port = int(receiver.url.split(":")[2].split("/")[0])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("127.0.0.1", port))])
    farm.run(endpoints.make, "ann", {"url": f"http://rebound.example:{port}/"}, ())
    ended()
    assert send(farm, allowed=()) == Sent(failed=1)
    assert receiver.got == []
    reason = rows(farm)[0].reason
    assert "FARM_WEBHOOK_NETWORKS" in reason
    assert "127.0.0.1" not in reason, "else it tells what the names of the farm's own network resolve to"


def test_proxy_of_the_environment_is_not_asked(farm, endpoint, ended, receiver, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    endpoint(receiver.url)
    ended()
    assert send(farm) == Sent(delivered=1)


def test_receiver_that_answers_by_a_byte_now_and_then_is_left(farm, endpoint, ended):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)  # on a busy machine the time may be over before there is a connection
        port = server.getsockname()[1]
        endpoint(f"http://127.0.0.1:{port}/")
        ended()

        def trickle():
            with suppress(OSError), server.accept()[0] as connection:
                for letter in chain(b"HTTP/1.1 200 OK\r\n", cycle(b"x")):
                    connection.sendall(bytes([letter]))
                    gone.wait(0.02)

        gone = Event()
        thread = Thread(target=trickle)
        thread.start()
        outgoing = farm.run(deliveries.take)
        failure = sending.send(outgoing, LOOPBACK, seconds=0.2)
        thread.join()
    assert failure == Failure("did not answer within 0.2 s", is_away=True)


def test_one_message_at_a_time_goes_to_a_receiver(farm, endpoint, ended, receiver):
    endpoint(receiver.url)
    ended()
    ended()
    first = farm.run(deliveries.take)
    assert farm.run(deliveries.take, [first]) is None
    assert farm.run(deliveries.take).id == first.id + 1


def test_owner_with_many_receivers_leaves_places_to_others(farm, ended, receiver):
    for owner, count in (("ann", 3), ("bob", 1)):
        farm.run(endpoints.of_jobs, owner)
        for number in range(count):
            ended(owner, scheduling={"webhook": f"{receiver.url}{number}"})
    sent = []
    while outgoing := farm.run(deliveries.take, sent):
        sent.append(outgoing)
    assert [one.owner for one in sent] == ["ann", "ann", "bob"]
    assert farm.run(deliveries.take, sent[1:]).owner == "ann"


def test_owners_whose_receivers_do_not_answer_leave_places_to_others(farm, ended, receiver):
    for owner in ("ann", "bob", "cid", "dan", "eve"):
        farm.run(endpoints.of_jobs, owner)
    for owner in ("ann", "bob", "cid", "dan"):
        for number in range(3):
            ended(owner, scheduling={"webhook": f"{receiver.url}{number}"})
        first = farm.run(deliveries.take, away={"ann", "bob", "cid", "dan"} - {owner})
        farm.run(deliveries.failed, first, Failure("away", is_away=True))
    ended("eve", scheduling={"webhook": receiver.url})  # the last
    away, sent = farm.run(deliveries.owners_away), []
    assert away == {"ann", "bob", "cid", "dan"}
    while outgoing := farm.run(deliveries.take, sent, away):
        sent.append(outgoing)
    assert [one.owner for one in sent] == ["eve", "ann", "bob", "cid"]
    assert farm.run(deliveries.take, sent[:-1], away).owner == "cid"


@pytest.mark.parametrize(
    "failure", [Failure("gone", is_away=False, is_gone=True), Failure("away", is_away=True, pause_seconds=1800)]
)
def test_what_a_receiver_says_to_one_owner_moves_no_message_of_another(farm, ended, receiver, failure):
    for owner in ("ann", "bob"):
        farm.run(endpoints.of_jobs, owner)
        ended(owner, scheduling={"webhook": receiver.url})
    farm.run(deliveries.failed, farm.run(deliveries.take), failure)
    assert send(farm) == Sent(delivered=1)


def test_event_that_comes_again_after_its_message_was_forgotten_keeps_the_id(farm, endpoint, ended, receiver):
    """One that is so old that this may have happened is not told again."""
    endpoint(receiver.url)
    ended()
    send(farm)
    again = "UPDATE outbox SET delivered_at = NULL, due_at = now()"
    run(farm, "DELETE FROM webhook_deliveries")
    run(farm, again)
    hand_out(farm)
    assert send(farm) == Sent(delivered=1)
    assert receiver.messages == receiver.messages[:1] * 2
    run(farm, "DELETE FROM webhook_deliveries")
    run(farm, f"{again}, at = at - interval '8 days'")
    assert hand_out(farm).events == 1
    assert rows(farm) == []


def test_pause_waits_for_what_is_being_recorded_and_gives_it_up(farm, endpoint, job_factory, receiver):
    made = endpoint(receiver.url).endpoint
    farm.run(transitions.cancel, EVERYBODYS, job_factory(owner="ann").id)
    event = farm.run(outbox.ends, EVERYBODYS, outbox.Place(0)).events[-1]
    with farm.sessions.begin() as recording:
        deliveries._record(recording, event, BASE)
        with farm.sessions() as pausing:
            pausing.execute(text("SET LOCAL lock_timeout = '20ms'"))
            with pytest.raises(OperationalError, match="lock timeout"):
                endpoints.change(pausing, "ann", made.id, {"paused": True}, LOOPBACK)
    farm.run(endpoints.change, "ann", made.id, {"paused": True}, LOOPBACK)
    assert [bool(row.dead_at) for row in rows(farm)] == [True]


def test_message_that_was_given_up_while_it_was_on_its_way_and_arrived_is_delivered(farm, endpoint, ended, receiver):
    made = endpoint(receiver.url).endpoint
    ended()
    outgoing = farm.run(deliveries.take)
    farm.run(endpoints.change, "ann", made.id, {"paused": True}, LOOPBACK)
    farm.run(deliveries.delivered, outgoing)
    assert farm.run(deliveries.find, "ann", outgoing.id).state == "delivered"


@pytest.mark.parametrize("form", ["discord", "slack"])
def test_chats_get_a_line_that_calls_nobody(farm, endpoint, job_factory, receiver, form):
    endpoint(receiver.url, format=form)
    job_factory(owner="ann", prompt="<!everyone> @everyone the sea")
    farm.finish(farm.worker().claim())
    hand_out(farm)
    send(farm)
    said = receiver.bodies[-1]
    line = ": 1 of 1 pictures"
    if form == "discord":
        assert said["allowed_mentions"] == {"parse": []}
        assert said["embeds"][0]["title"].endswith(line)
        assert said["embeds"][0]["url"].startswith(BASE)
    else:
        assert said["text"].endswith(line)
        assert said["blocks"][1]["text"]["type"] == "plain_text"
        assert "&lt;!everyone&gt;" in said["blocks"][1]["text"]["text"]


def test_what_is_long_past_is_forgotten(farm, endpoint, ended, receiver):
    endpoint(receiver.url)
    for when, at in product(("delivered_at", "dead_at"), ("6 days", "8 days", "31 days")):
        ended()
        run(
            farm,
            f"UPDATE webhook_deliveries SET {when} = now() - CAST(:at AS interval) "
            "WHERE id = (SELECT max(id) FROM webhook_deliveries)",
            at=at,
        )
    assert deliveries.forget(farm.sessions) == 3
    assert len(rows(farm)) == 3


URL = "/api/v1/webhooks"


def test_webhook_is_made_listed_changed_and_deleted_over_the_api(client):
    made = client.post(URL, json={"url": "https://example.com/hook", "name": "n8n"})
    assert made.status_code == 201
    body = made.get_json()
    assert body["secret"].startswith("whsec_")
    assert client.get(f"{URL}/{body['id']}").get_json()["secret"] is None
    rotated = client.post(f"{URL}/{body['id']}/rotate").get_json()
    assert rotated["secret"] not in (body["secret"], None)
    changed = client.patch(f"{URL}/{body['id']}", json={"paused": True, "kinds": ["job.failed"]}).get_json()
    assert (changed["paused"], changed["kinds"], changed["name"]) == (True, ["job.failed"], "n8n")
    assert client.post(f"{URL}/{body['id']}/test").status_code == 409
    assert [one["id"] for one in client.get(URL).get_json()["webhooks"]] == [body["id"]]
    assert client.delete(f"{URL}/{body['id']}").status_code == 204
    assert client.get(f"{URL}/{body['id']}").status_code == 404


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "https://ann:secret@example.com/"}, "url"),
        ({"url": "http://127.0.0.1/"}, "url"),
        ({"url": "http://[::ffff:169.254.169.254]/"}, "url"),
        ({"url": "http://[fec0::2]/"}, "url"),
        ({"url": "http://[::7f00:1]/"}, "url"),
        ({"url": "http://[::ffff:0:7f00:1]/"}, "url"),
        ({"url": "http://[64:ff9b:1::1]/"}, "url"),
        ({"url": "http://localhost:9000/"}, "url"),
        ({"url": "https://bücher.example/"}, "url"),
        ({"url": "https://example.com:70000/"}, "url"),
        ({"url": 5}, "url"),
        ({"url": "https://example.com/", "format": "teams"}, "format"),
        ({"url": "https://example.com/", "kinds": []}, "kinds"),
        ({"url": "https://example.com/", "kinds": ["job.begun"]}, "kinds.0"),
        ({"url": "https://example.com/", "name": "a\u0000b"}, "name"),
        ({"url": "https://example.com/", "secret": "mine"}, "secret"),
    ],
)
def test_webhook_that_cannot_be_is_refused_by_its_field_and_nothing_is_kept(client, given, field):
    answer = client.post(URL, json=given)
    assert answer.status_code == 422
    [problem] = answer.get_json()["errors"]
    assert problem["field"] == field
    assert problem["accepted"]
    assert client.get(URL).get_json()["webhooks"] == []


def test_job_that_names_a_webhook_makes_the_one_of_all_such(client, checkpoint_factory):
    checkpoint_factory()
    for _ in range(2):
        made = client.post("/api/v1/jobs", json={"prompt": "sea", "webhook": "https://example.com/hook"})
        assert made.status_code == 202
    assert [one["url"] for one in client.get(URL).get_json()["webhooks"]] == [None]


def test_job_with_an_inside_webhook_is_refused(client):
    wrong = client.post("/api/v1/jobs", json={"prompt": "sea", "webhook": "http://10.0.0.5/hook"}).get_json()["errors"]
    assert {problem["field"] for problem in wrong} >= {"webhook"}


def test_webhooks_are_their_owners_alone(farm, endpoint, ended, receiver):
    made = endpoint(receiver.url).endpoint
    ended()
    [row] = rows(farm)
    for action, which in (
        (endpoints.find, made.id), (endpoints.rotate, made.id), (endpoints.drop, made.id),
        (deliveries.find, row.id), (deliveries.replay, row.id), (deliveries.replay_dead, made.id),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            farm.run(action, "bob", which)


def test_deliveries_are_listed_by_state_and_replayed_over_the_api(client, farm, receiver):
    made = farm.run(endpoints.make, "local", {"url": receiver.url}, LOOPBACK).endpoint
    for state in ("dead_at", "delivered_at", None):
        assert client.post(f"{URL}/{made.id}/test").status_code == 202
        if state:
            run(
                farm,
                f"UPDATE webhook_deliveries SET {state} = now() WHERE id = (SELECT max(id) FROM webhook_deliveries)",
            )
    assert client.post(f"{URL}/{made.id}/test").status_code == 409, "one waits"
    page = client.get(f"{URL}/{made.id}/deliveries?limit=2").get_json()
    assert [one["state"] for one in page["deliveries"]] == ["waiting", "delivered"]
    rest = client.get(f"{URL}/{made.id}/deliveries?cursor={page['next']}").get_json()
    [dead] = client.get(f"{URL}/{made.id}/deliveries?state=dead").get_json()["deliveries"]
    assert (rest["deliveries"], rest["next"]) == ([dead], None)
    assert client.post(f"{URL}/deliveries/{dead['id']}/replay").get_json()["state"] == "waiting"
    assert client.post(f"{URL}/deliveries/{dead['id']}/replay").status_code == 409
    assert send(farm) == Sent(delivered=2)
    assert {body["type"] for body in receiver.bodies} == {"test"}


def test_page_shows_a_secret_once_and_sends_a_test(client):
    made = send_form(client, "/webhooks", url="https://example.com/hook", name="mine", format="standard")
    assert made.status_code == 303, "loaded again, it makes no second one"
    shown = client.get(made.location)
    assert ("whsec_" in shown.text, shown.headers["Cache-Control"]) == (True, "no-store")
    [listed] = [one for one in look(client, "/webhooks").all("a") if "/webhooks/" in one.attributes["href"]]
    here = listed.attributes["href"]
    assert "whsec_" not in look(client, here).text
    assert "whsec_" in look(client, send_form(client, f"{here}/rotate").location).text
    assert "whsec_" not in look(client, here).text
    send_form(client, f"{here}/test")
    assert "a test" in look(client, here).text
    send_form(client, f"{here}/change", pause="")
    assert "given up" in look(client, here).text
    send_form(client, f"{here}/delete")
    assert client.get(here).status_code == 404


def test_page_says_what_is_wrong_beside_the_field(client):
    wrong = page(send_form(client, "/webhooks", url="http://192.168.0.9/", name="mine", format="standard"))
    assert "is an address of the farm's own network, 192.168.0.9" in wrong.text
    assert wrong.value("name") == "mine"
