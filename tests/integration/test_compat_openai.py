"""OpenAI's door: the requests of its clients, and what they read in the answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO

import pytest
from flask import Flask
from PIL import Image
from sqlalchemy import func, select

from api.app import create_app
from api.compat.openai.stream import PictureEvents
from api.http.watch import Watch
from api.quotas import Places
from api.services import EXTENSION
from shared.accounts.principal import LOCAL
from shared.db.tables import Job
from shared.errors import StorageAway, Unavailable
from shared.media.storage import Storage
from tests.clients.recordings import body, kept
from tests.integration.test_api_uploads import picture
from tests.support.painting import painting

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
ELSEWHERE = "nobody-renders-here"


@pytest.fixture(scope="module")
def app(standing_app: Flask) -> Iterator[Flask]:
    """A farm that renders within milliseconds, but not in the pool ELSEWHERE."""
    services = standing_app.extensions[EXTENSION]
    with painting(services.settings, services.sessions):
        yield standing_app


@pytest.fixture
def generate(client):
    return lambda prompt="a lake", headers=None, **given: client.post(
        GENERATIONS, json={"prompt": prompt, "size": "64x64", "steps": 2} | given, headers=headers
    )


@pytest.fixture
def impatient(services, monkeypatch):
    """Requests wait for a tenth of a second."""
    monkeypatch.setitem(vars(services.settings), "door_seconds", 0.05)


def opened(b64_json: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(b64_json)))


def job(client, answer):
    return client.get(answer.headers["Location"]).get_json()


def events(answer) -> list[dict]:
    parts = [part.split("\n") for part in answer.text.split("\n\n") if part and part[0] != ":"]
    assert all(event == f"event: {json.loads(data[6:]).get('type', 'error')}" for event, data in parts)
    return [json.loads(data.removeprefix("data: ")) for _, data in parts]


def jobs(services) -> int:
    with services.sessions() as session:
        return session.scalar(select(func.count()).select_from(Job))


@pytest.mark.parametrize(("number", "status"), [*enumerate([200, 200, 200, 200, 200, 400, 404])])
def test_requests_of_the_client_itself_are_answered_as_it_expects(client, number, status):
    asked = kept("openai")["requests"][number]
    answer = client.open(asked["path"], method=asked["method"], headers=asked["headers"], data=body(asked))
    assert answer.status_code == status, answer.text
    assert answer.mimetype == ("text/event-stream" if number == 4 else "application/json")
    if status == 200 and asked["method"] == "POST" and number != 4:
        assert all(opened(one["b64_json"]).size == (64, 64) for one in answer.get_json()["data"])
    if status != 200:
        assert answer.get_json()["error"].keys() == {"message", "type", "param", "code"}


def test_pictures_come_with_what_they_took(client, generate):
    answer = generate("a red boat", n=2, seed=40, negative_prompt="rain").get_json()
    first, second = answer["data"]
    assert (first["seed"], second["seed"]) == (40, 41)
    assert opened(second["b64_json"]).getpixel((0, 0)) == (41, 41, 41)
    assert "url" not in first
    tokens = sum(
        client.post("/api/v1/tokens", json=prompt).get_json()["tokens"]
        for prompt in ({"prompt": "a red boat"}, {"negative_prompt": "rain"})
    )
    usage = answer["usage"]
    assert usage["input_tokens"] == usage["total_tokens"] == tokens
    assert (usage["images"], usage["steps"], usage["output_tokens"]) == (2, 4, 0)
    assert usage["seconds"] > 0
    assert (answer["size"], answer["background"], answer["output_format"]) == ("64x64", "opaque", "png")
    assert answer["quality"] is None, "the steps were given"


def test_links_lead_to_the_pictures(client, generate):
    answer = generate(response_format="url", output_format="jpeg", output_compression=0)
    assert job(client, answer)["params"]["file_quality"] == 1
    [one] = answer.get_json()["data"]
    assert client.get(one["url"].removeprefix("http://localhost")).data == base64.b64decode(one["b64_json"])
    assert one["url"].endswith(".jpg")


def test_a_model_that_is_not_known_is_the_farms_first_and_the_answer_says_so(client, generate):
    assert generate(model="dall-e-3").get_json()["model"].startswith("demo [")
    refused = generate(checkpoint="dall-e-3")
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "checkpoint")


def test_a_model_that_is_known_renders_its_pictures(client, generate, app):
    from tests.conftest import checkpoints_of  # noqa: PLC0415 - a module of fixtures

    checkpoints_of(app.extensions[EXTENSION].sessions)("ink", native_size=128)
    answer = client.post(GENERATIONS, json={"prompt": "a lake", "model": "ink", "steps": 1}).get_json()
    assert answer["model"].startswith("ink [")
    assert answer["size"] == "128x128"
    assert {one["id"] for one in client.get("/v1/models").get_json()["data"]} == {"demo", "ink"}


def test_a_mask_repaints_where_it_is_transparent(client):
    form = {
        "image[]": (BytesIO(picture(size=(64, 64))), "a.png"),
        "mask": (BytesIO(picture(colour=(0, 0, 0, 0), size=(64, 64), mode="RGBA")), "m.png"),
        "prompt": "a boat", "n": "2", "steps": "2", "input_fidelity": "high", "clip_skip": "2",
    }  # fmt: skip
    answer = client.post(EDITS, data=form)
    assert len(answer.get_json()["data"]) == 2
    params = job(client, answer)["params"]
    assert params["img2img"]["mask"]["invert"] is True
    assert params["img2img"]["denoising"] == 0.5
    assert params["clip_skip"] == 2


def test_pictures_come_as_events(generate):
    answer = generate(stream=True, partial_images=3, n=2, quality="low", steps=20, seed=5)
    told = events(answer)
    assert {one["type"] for one in told} <= {"image_generation.partial_image", "image_generation.completed"}
    complete = [one for one in told if one["type"] == "image_generation.completed"]
    assert [(one["index"], one["seed"], one["usage"]["images"]) for one in complete] == [(0, 5, 1), (1, 6, 1)]
    assert told[-1] == complete[-1]


def test_previews_are_events_spread_over_the_steps_of_a_picture(client, services, generate):
    from shared.messaging.events import PreviewChanged, Progress  # noqa: PLC0415 - they are this test's alone

    waiting = client.post("/api/v1/jobs", json={"prompt": "a lake", "pool": ELSEWHERE}).get_json()["id"]
    from api.compat.openai.answer import Rendered  # noqa: PLC0415
    from api.compat.openai.request import generation  # noqa: PLC0415

    wanted = generation({"prompt": "a lake", "stream": True, "partial_images": 1})
    stream = PictureEvents(None, Rendered.find(services, LOCAL, wanted, waiting))
    services.events.put_preview(waiting, 0, b"webp")
    assert services.events.flush()

    def seen(step: int) -> bool:
        stream._due(Progress(waiting, 0, 1, step, 10, "steps"))
        make = stream._due(PreviewChanged(waiting, 0))
        return bool(make and make())

    assert [seen(step) for step in (1, 4, 5, 9)] == [False, False, True, False]


def test_a_failure_is_told_with_its_reason_and_is_not_to_be_tried_again(client, generate):
    answer = generate("fail: the card is on fire")
    error = answer.get_json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (500, "server_error", "image_generation_failed")
    assert "the card is on fire" in error["message"]
    assert answer.headers["X-Should-Retry"] == "false"
    [told] = events(generate("fail: the card is on fire", stream=True))
    assert told["error"] == error | {"message": told["error"]["message"]}
    assert "the card is on fire" in told["error"]["message"]


def test_who_waits_in_vain_hears_why_and_the_job_is_cancelled(client, generate, impatient):
    answer = generate(pool=ELSEWHERE)
    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"], answer.headers["X-Should-Retry"]) == (504, "timeout", "false")
    assert job(client, answer)["state"] == "cancelled"
    [told] = events(generate(pool=ELSEWHERE, stream=True))
    assert told["error"]["code"] == "timeout"
    assert "pool" in told["error"]["message"], "why it waited"


def test_a_job_with_an_idempotency_key_outlives_the_wait(client, generate, impatient):
    key = {"Idempotency-Key": "once"}
    first, again = (generate(pool=ELSEWHERE, headers=key) for _ in range(2))
    assert (first.status_code, again.headers["Location"]) == (504, first.headers["Location"])
    assert job(client, first)["state"] == "queued"


def test_a_job_is_cancelled_when_its_client_goes_away(client, generate):
    answer = client.post(GENERATIONS, json={"prompt": "x", "pool": ELSEWHERE, "stream": True}, buffered=False)
    assert job(client, answer)["state"] == "queued"
    answer.close()
    assert job(client, answer)["state"] == "cancelled"


def test_a_watch_gives_its_place_back(services):
    places = Places(1, lambda: False)
    farm = vars(services) | {"streams": places}
    waiting = Watch.submit(type(services)(**farm), LOCAL, {"prompt": "x", "pool": ELSEWHERE})
    assert not places.take("local")
    waiting.close()
    assert places.take("local")


def test_too_many_waiting_requests_are_refused_and_nothing_is_recorded(generate, services, monkeypatch):
    monkeypatch.setattr(Places, "take", lambda *_: False)
    before = jobs(services)
    answer = generate()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.get_json()["error"]["type"] == "server_error"
    assert jobs(services) == before


def test_a_storage_that_is_away_is_an_error_and_not_half_an_answer(generate, monkeypatch):
    def away(*_: object) -> bytes:
        raise StorageAway("reading", "it is not mounted")

    monkeypatch.setattr(Storage, "get", away)
    assert generate().status_code == 503
    assert events(generate(stream=True))[-1]["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"size": "12x12x12"}, "size"),
        ({"size": "100x100"}, "size"),
        ({"size": "8x999999"}, "size"),
        ({"n": 11}, "n"),
        ({"n": 0}, "n"),
        ({"background": "transparent"}, "background"),
        ({"output_format": "svg"}, "output_format"),
        ({"quality": "ultra"}, "quality"),
        ({"steps": 10**9}, "steps"),
        ({"sampler": "Tomorrow"}, "sampler"),
        ({"loras": ["a:b"]}, "loras"),
        ({"count": 3}, "n"),
        ({"sweep": {}}, "sweep"),
        ({"smoothness": 3}, "smoothness"),
        ({"partial_images": 4, "stream": True}, "partial_images"),
        ({"prompt": None}, "prompt"),
    ],
)
def test_what_cannot_be_accepted_is_a_400_that_names_the_field(generate, services, given, param):
    before = jobs(services)
    answer = generate(**{"prompt": "a lake"} | given)
    error = answer.get_json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["param"].partition(".")[0] == param
    assert "Accepted:" in error["message"]
    assert jobs(services) == before


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({}, "image"),
        ({"image": [(BytesIO(b"x"), "a.png"), (BytesIO(b"y"), "b.png")]}, "image"),
        ({"image": (BytesIO(b"not a picture"), "a.png")}, "image"),
        ({"image": (BytesIO(picture()), "a.png"), "mask": (BytesIO(picture()), "m.png")}, "mask"),
        ({"image": (BytesIO(picture()), "a.png"), "markup": (BytesIO(picture()), "m.png")}, "markup"),
        ({"image": (BytesIO(picture()), "a.png"), "strength": "2"}, "strength"),
    ],
)
def test_what_cannot_be_edited_is_a_400_that_names_the_field(client, form, param):
    answer = client.post(EDITS, data={"prompt": "a boat"} | form, content_type="multipart/form-data")
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, param)


def test_every_error_of_the_door_has_its_shape(client, monkeypatch):
    def away(*_: object) -> None:
        raise Unavailable("The database is away.")

    asked = {
        404: client.get("/v1/chat"),
        405: client.get(GENERATIONS),
        413: client.post(GENERATIONS, data=b'"' + b"x" * 3 * 2**20, content_type="application/json"),
        415: client.post(EDITS, json={}),
        400: client.post(GENERATIONS, json=[]),
    }
    monkeypatch.setattr("api.compat.openai.models.listed", away)
    asked[503] = client.get("/v1/models")
    for status, answer in asked.items():
        assert answer.status_code == status
        error = answer.get_json()["error"]
        assert error["message"]
        assert error["type"] == ("server_error" if status == 503 else "invalid_request_error")


def test_keys_are_those_of_the_farm(settings):
    app = create_app(settings.model_copy(update={"api_keys": {"anns-long-key": "ann"}}))
    client = app.test_client()
    answer = client.post(GENERATIONS, json={"prompt": "x"}, headers={"Authorization": "Bearer sk-other"})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (401, "invalid_api_key")
    assert client.get("/v1/models", headers={"Authorization": "Bearer anns-long-key"}).status_code == 200
    app.extensions[EXTENSION].close()
