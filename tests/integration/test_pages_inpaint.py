"""The room for inpainting: what it is filled in with, what it sends, and what it shows of its job."""

from __future__ import annotations

from functools import partial
from io import BytesIO

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from shared.db.sessions import transact
from shared.media.storage import key
from shared.queue import transitions
from tests.support.browsing import look, page, send
from tests.support.queueing import Farmhand

FIELDS = {"prompt": "a hill", "seed": "7", "count": "2", "steps": "4", "clip_skip": "2"}


@pytest.fixture(scope="module")
def app(standing_app: Flask) -> Flask:
    return standing_app


def picture(colour: str = "green") -> bytes:
    data = BytesIO()
    Image.new("RGB", (96, 64), colour).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def finished(client: FlaskClient, services) -> str:
    """A job of two images, both of them finished with a real picture."""
    job = send(client, "/jobs", **FIELDS).location.rpartition("/")[2]
    worker = Farmhand(services.sessions).worker()
    for _ in range(2):
        claim = worker.claim()
        services.storage.put(key(claim.job_id, claim.index, claim.attempt, "picture"), picture())
        transact(services.sessions, partial(transitions.finish, claim=claim, picture_bytes=9))
    return job


def test_a_picture_of_a_job_leads_to_the_room_as_its_source(client, finished):
    answer = send(client, f"/jobs/{finished}/images/1/send", to="inpaint")
    assert answer.location.startswith(f"/inpaint?from={finished}&image=1&source=")
    room = look(client, answer.location)
    (kept,) = room.all("input", name="img2img.picture")
    assert "checked" in kept.attributes
    assert client.get(f"/api/v1/uploads/{kept.attributes['value']}").status_code == 200
    assert (room.value("seed"), room.value("count")) == ("-1", "1")
    assert not [one for one in room.all("form") if "data-sends" in one.attributes]
    (link,) = [one for one in room.all("a") if "#inpaint" in (one.attributes.get("href") or "")]  # without scripts
    assert look(client, link.attributes["href"]).value("img2img.picture") == kept.attributes["value"]


def test_a_link_to_a_picture_says_what_makes_it_an_upload(client, finished):
    room = look(client, f"/inpaint?from={finished}&image=1")
    (form,) = room.all("form", **{"class": "composer"})
    assert form.attributes["data-sends"] == f"/jobs/{finished}/images/1/send"
    assert look(client, f"/inpaint?from={finished}&image=7", 404)


def test_the_room_has_a_field_of_its_own_for_each_id_and_sends_what_it_does_not_show(client, finished):
    source = send(client, f"/jobs/{finished}/images/1/send", to="inpaint").location
    room = look(client, source)
    ids = [one.attributes["id"] for one in room.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    assert room.value("clip_skip") == "2"
    answer = send(client, "/jobs", token_from=source, back="/inpaint", **{**FIELDS, "steps": "0"})
    assert answer.status_code == 422


def test_the_room_stays_in_sight_and_shows_its_job_alone(client, services):
    answer = send(client, "/jobs", back="/inpaint", **FIELDS)
    job = int(answer.location.removeprefix("/inpaint?job="))
    alone = look(client, f"/inpaint/painting?job={job}")
    (painting,) = alone.all("div", **{"data-part": "painting"})
    assert (painting.attributes["data-job"], painting.attributes["data-open"]) == (str(job), "yes")
    assert "1 picture queued" not in look(client, answer.location).text
    stopped = send(client, f"/jobs/{job}/cancel", back=answer.location)
    assert stopped.location == answer.location
    assert look(client, f"/inpaint/painting?job={job}").all("div", **{"data-job": str(job), "data-open": "no"})


def test_a_job_that_is_not_there_is_not_found_and_none_is_an_empty_part(client):
    assert look(client, "/inpaint/painting?job=999999", 404)
    (painting,) = look(client, "/inpaint/painting").all("div", **{"data-part": "painting"})
    assert "data-events" not in painting.attributes


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_room_says_what_it_needs_without_scripts(client, language):
    room = look(client, f"/inpaint?lang={language}")
    assert page(client.get("/inpaint?lang=en")).all("a", href="/")
    assert ("需要" in room.text) == (language == "zh")
