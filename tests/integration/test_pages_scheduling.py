"""A job's scheduling on the pages: the form's groups, the job's page, its buttons and reasons."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from werkzeug.datastructures import MultiDict

from api.app import create_app
from api.pages.form_data import read
from api.services import EXTENSION
from shared.queue import deadlines
from tests.support.browsing import look, page, send
from tests.support.queueing import Farmhand


@pytest.fixture(autouse=True)
def _checkpoint(checkpoint_factory):
    checkpoint_factory("demo", native_size=64)


def submitted(client, **fields: str) -> str:
    answer = send(client, "/jobs", prompt="the sea", steps="4", **fields)
    assert answer.status_code == 303, page(answer).text
    return answer.location


def offered(shown) -> set[str]:
    """The last words of the addresses that the page's forms lead to."""
    return {form.attributes["action"].rpartition("/")[2] for form in shown.all("form", method="post")}


def test_a_job_held_by_hand_is_released_and_held_again_by_its_buttons(client):
    address = submitted(client, hold="on")
    held = look(client, address)
    assert "held by local" in held.text
    assert "release" in offered(held)
    assert "hold" not in offered(held)

    assert send(client, f"{address}/release").location == address
    queued = look(client, address)
    assert "1 image in the queue now." in queued.text
    assert "hold" in offered(queued)
    assert "release" not in offered(queued)

    send(client, f"{address}/hold")
    assert "1 image held until you press Release." in look(client, address).text
    send(client, f"{address}/hold")
    assert "cannot be held: it is held." in look(client, address).text


def test_a_deadline_stands_on_the_page_and_then_the_reason(client, sessions):
    address = submitted(client, expires_at="2100-01-31T03:00")
    shown = look(client, address)
    assert "Cancelled if it has not started by 31 Jan 2100, 03:00 UTC." in shown.text

    hand = Farmhand(sessions)
    with sessions.begin() as session:
        for image in hand.images(1):
            image.expires_at = datetime(2020, 1, 2, 3, 4, tzinfo=UTC)
            session.merge(image)
    hand.run(deadlines.move_due)

    ended = look(client, address)
    assert "not started by its deadline, 2020-01-02 03:04 UTC" in ended.text
    assert "Cancelled if it has not" not in ended.text


def test_the_form_says_what_is_wrong_with_the_terms_and_keeps_what_was_typed(client):
    fields = {"expires_at": "2020-01-01T00:00", "hold_until": "2100-01-01T00:00:00.000Z", "hold_behind": "4711"}
    answer = send(client, "/jobs", prompt="the sea", **fields)

    assert answer.status_code == 422
    form = page(answer)
    assert "When: Start by: 2020-01-01 00:00 UTC has passed" in form.text
    assert "When: Hold behind job" in form.text
    assert form.value("expires_at") == "2020-01-01T00:00"
    assert form.value("hold_until") == "2100-01-01T00:00"
    assert form.value("hold_behind") == "4711"
    assert form.all("details", id="group-when", open=None)


def test_the_form_s_terms_are_folded_away_and_empty_at_first(client):
    form = look(client, "/")

    assert form.all("details", id="group-when")
    assert "open" not in form.all("details", id="group-when")[0].attributes
    assert [form.value(name) for name in ("expires_at", "hold_until")] == ["", ""]
    assert {one.attributes["type"] for one in form.elements if "data-instant" in one.attributes} == {"datetime-local"}


def test_the_form_s_queue_reaches_the_job_and_its_page(client):
    address = submitted(client, pool="large", priority="-5", urgent="on")

    job = client.get(f"/api/v1{address}").get_json()
    assert (job["pool"], job["priority"], job["urgent"]) == ("large", -5, True)
    assert "Queue Pool large Priority -5 Urgent yes" in look(client, address).text
    assert "Queue" not in look(client, submitted(client)).text


def test_a_refused_form_shows_the_queue_s_errors_and_keeps_what_was_typed(client):
    answer = send(client, "/jobs", prompt="the sea", pool="Large Cards", priority="1000", urgent="on")

    assert answer.status_code == 422
    form = page(answer)
    assert "Queue: Pool: is not the name of a pool" in form.text
    assert "1000 is too large Accepted: a whole number from -100 to 100" in form.text
    assert (form.value("pool"), form.value("priority")) == ("Large Cards", "1000")
    assert "checked" in form.all("input", name="urgent")[0].attributes
    assert form.all("details", id="group-queue", open=None)


def test_the_form_proposes_the_pools_of_living_workers(client, sessions):
    form = look(client, "/")
    assert not form.all("datalist")
    assert "open" not in form.all("details", id="group-queue")[0].attributes

    hand = Farmhand(sessions)
    hand.worker(pool="default,large")
    hand.worker(pool="large,small")
    hand.worker(pool="gone", lease_seconds=-60)

    form = look(client, "/")
    [offered_pools] = form.all("datalist")
    assert form.all("input", name="pool", list=offered_pools.attributes["id"])
    options = form.elements[form.elements.index(offered_pools) + 1 :][:3]
    assert [one.attributes["value"] for one in options] == ["default", "large", "small"]


def test_only_who_may_be_urgent_is_asked_for_it(settings):
    keys = {"ann-long-key": "ann", "bob-long-key": "bob"}
    app = create_app(settings.model_copy(update={"api_keys": keys, "urgent_owners": "ann"}))
    ann, bob = app.test_client(), app.test_client()
    for client, key in ((ann, "ann-long-key"), (bob, "bob-long-key")):
        send(client, "/sign-in", "/sign-in", key=key)

    assert look(ann, "/").all("input", name="urgent")
    assert not look(bob, "/").all("input", name="urgent")
    assert submitted(ann, urgent="on")
    answer = send(bob, "/jobs", prompt="the sea", urgent="on")
    assert answer.status_code == 422
    assert "Queue: Urgent: only jobs of ann may be urgent here" in page(answer).text
    app.extensions[EXTENSION].close()


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ({}, {}),
        ({"hold": "on", "hold_behind": " 12 "}, {"hold": True, "hold_behind": 12}),
        (
            {"pool": " large ", "priority": " -5 ", "urgent": "on"},
            {"pool": "large", "priority": -5, "urgent": True},
        ),
        ({"pool": " ", "priority": "", "urgent": ""}, {}),
        ({"priority": "high"}, {"priority": "high"}),
        ({"expires_at": "2100-01-31T03:00"}, {"expires_at": "2100-01-31T03:00:00+00:00"}),
        ({"expires_at": "2100-01-31T03:00:00.000Z"}, {"expires_at": "2100-01-31T03:00:00+00:00"}),
        ({"expires_at": "soon", "hold_behind": "²"}, {"expires_at": "soon", "hold_behind": "²"}),
        ({"hold_until": "0001-01-01T00:00+12:00"}, {"hold_until": "0001-01-01T00:00+12:00"}),
    ],
)
def test_what_was_typed_is_read_in_utc_and_what_cannot_be_is_left_to_the_door(typed, asked):
    assert read(MultiDict(typed)) == asked
