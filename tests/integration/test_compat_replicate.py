"""Replicate's door: the requests of its client, and what it reads in the answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO

import pytest
from flask import Flask

from api.http import watch
from api.quotas import Places
from api.services import EXTENSION
from tests.clients.recordings import body, kept
from tests.integration.test_api_uploads import data_url, picture
from tests.support.painting import painting

PREDICTIONS, MODELS = "/replicate/v1/predictions", "/replicate/v1/models"
ELSEWHERE = "nobody-renders-here"
WAIT = {"Prefer": "wait"}


@pytest.fixture(scope="module")
def app(standing_app: Flask) -> Iterator[Flask]:
    """A farm that renders within milliseconds, but not in the pool ELSEWHERE."""
    services = standing_app.extensions[EXTENSION]
    with painting(services.settings, services.sessions):
        yield standing_app


@pytest.fixture
def predict(client):
    def ask(headers=WAIT, path=PREDICTIONS, around=None, **given: object):
        source = {"prompt": "a lake", "width": 64, "height": 64, "num_inference_steps": 2} | given
        return client.post(path, json={"input": source} | (around or {}), headers=headers)

    return ask


def path(url: str) -> str:
    return url.removeprefix("http://localhost")


def params(client, prediction) -> dict:
    return client.get(f"/api/v1/jobs/{prediction['id']}").get_json()["params"]


def test_requests_of_the_client_itself_are_answered(client):
    for asked in kept("replicate")["requests"]:
        address = re.sub(r"/\d+(?=/|$)", "/1", asked["path"])
        if address.endswith("/stream"):
            continue  # of job 1, which may go on here
        headers = asked["headers"] | {"prefer": "wait=1"}
        sent = body(asked).replace(b"nobody-renders-here", b"default")
        status = client.open(address, method=asked["method"], headers=headers, data=sent).status_code
        is_made = asked["method"] == "POST" and not address.endswith("/cancel")
        assert status == (422 if b'"width":13' in sent else 201 if is_made else 200), address


def test_a_prediction_that_is_waited_for_has_its_pictures(client, predict):
    answer = predict(
        num_outputs=2, seed=5, scheduler="K_EULER", output_format="jpg", output_quality=0, guidance_scale=4
    )
    found = answer.get_json()
    assert (answer.status_code, found["status"], found["error"]) == (201, "succeeded", None)
    assert [client.get(path(link)).mimetype for link in found["output"]] == ["image/jpeg"] * 2
    assert found["metrics"]["image_count"] == 2
    assert found["metrics"]["total_time"] >= found["metrics"]["predict_time"] > 0
    assert found["model"] == "stepfarm/demo"
    assert found["input"] | {"prompt": ""} == {
        "prompt": "", "negative_prompt": "", "width": 64, "height": 64, "seed": 5, "num_outputs": 2,
        "num_inference_steps": 2, "guidance_scale": 4, "scheduler": "Euler", "output_format": "jpeg",
        "output_quality": 1,
    }  # fmt: skip
    assert found["logs"].splitlines() == ["Using seed: 5", "100%|██████████| 4/4"]
    assert found["created_at"] <= found["started_at"] <= found["completed_at"]


def test_a_prediction_that_goes_on_after_the_wait_is_starting(client, predict, monkeypatch):
    monkeypatch.setattr(watch, "TURN_SECONDS", 0.05)
    answer = predict({"Prefer": "wait=1"}, pool=ELSEWHERE).get_json()
    assert (answer["status"], answer["output"], answer["completed_at"]) == ("starting", None, None)
    assert "pool" in answer["logs"], "why it waits"
    cancelled = client.post(path(answer["urls"]["cancel"]))
    assert (cancelled.status_code, cancelled.get_json()["status"]) == (200, "canceled")
    assert client.post(path(answer["urls"]["cancel"])).get_json()["status"] == "canceled", "a second time"
    assert client.get(path(answer["urls"]["get"])).get_json() == cancelled.get_json()


def test_who_finds_no_place_to_wait_is_answered_at_once(predict, monkeypatch):
    monkeypatch.setattr(Places, "take", lambda *_: False)
    answer = predict(pool=ELSEWHERE)
    assert (answer.status_code, answer.get_json()["status"]) == (201, "starting")


def test_a_prediction_that_fails_says_why(predict):
    found = predict(prompt="fail: the card is on fire").get_json()
    assert (found["status"], found["output"]) == ("failed", None)
    assert "the card is on fire" in found["error"]


def test_a_version_is_a_checkpoint_and_an_unknown_one_the_first(client, predict, app):
    from tests.conftest import checkpoints_of  # noqa: PLC0415 - a module of fixtures

    ink = checkpoints_of(app.extensions[EXTENSION].sessions)("ink", native_size=64)
    version = client.get(f"{MODELS}/anybody/ink/versions").get_json()["results"][0]["id"]
    assert version == ink.sha256
    assert predict(around={"version": version}).get_json()["model"] == "stepfarm/ink"
    assert predict(around={"version": f"anybody/ink:{version}"}).get_json()["model"] == "stepfarm/ink"
    assert predict(path=f"{MODELS}/anybody/ink/predictions").get_json()["model"] == "stepfarm/ink"
    assert predict(path=f"{MODELS}/stability-ai/sdxl/predictions").get_json()["model"] == "stepfarm/demo"
    assert client.get(f"{MODELS}/stability-ai/sdxl").status_code == 404
    assert {one["name"] for one in client.get(MODELS).get_json()["results"]} == {"demo", "ink"}


def test_a_picture_is_taken_as_a_file_or_in_the_request(client, predict):
    kept_file = client.post("/replicate/v1/files", data={"content": (BytesIO(picture()), "a.png")})
    assert kept_file.status_code == 201
    file = kept_file.get_json()
    first = params(client, predict(image=file["urls"]["get"], prompt_strength=0.4).get_json())["img2img"]
    assert (first["picture"], first["denoising"]) == (file["id"], 0.4)
    again = params(client, predict(image=data_url(picture()), mask=data_url(picture("white"))).get_json())["img2img"]
    assert again["picture"] == file["id"]
    assert again["mask"]["invert"] is False, "white is repainted, as there"
    assert client.post("/replicate/v1/files", data={}).get_json()["errors"][0]["field"] == "content"


def test_a_large_picture_in_a_request_is_within_its_bounds(predict):
    answer = predict(image=data_url(b"\0" * 3 * 2**20))
    assert answer.status_code == 422, "it is not a picture, and was read"


def test_pages_lead_to_older_predictions(client, predict):
    ids = [predict({}, pool=ELSEWHERE).get_json()["id"] for _ in range(2)]
    page = client.get(PREDICTIONS).get_json()
    assert [one["id"] for one in page["results"]][:2] == ids[::-1]
    older = client.get(f"{PREDICTIONS}?cursor={ids[1]}").get_json()
    assert older["results"][0]["id"] == ids[0]


def test_events_end_with_the_prediction(client, predict):
    found = predict(num_outputs=2).get_json()
    stream = client.get(path(found["urls"]["stream"]))
    events = [part.split("\n") for part in stream.text.split("\n\n") if part and part[0] != ":"]
    assert [lines[0] for lines in events] == ["event: output"] * 2 + ["event: done"]
    assert [lines[2].removeprefix("data: ") for lines in events[:2]] == found["output"]
    failed = client.get(path(predict(prompt="fail: on fire").get_json()["urls"]["stream"])).text
    assert "event: error\nid: error\ndata: " in failed


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input": {"prompt": "x", "width": 13}}, "width"),
        ({"input": {"prompt": "x", "smoothness": 1}}, "smoothness"),
        ({"input": {"prompt": "x", "image": "https://example.com/a.png"}}, "img2img.picture"),
        ({"input": []}, "input"),
        ({"input": {}, "webhook": "https://example.com", "webhook_events_filter": ["start"]}, "webhook_events_filter"),
        ([], "body"),
    ],
)
def test_what_cannot_be_accepted_is_a_problem_that_names_the_field(client, body, field):
    answer = client.post(PREDICTIONS, json=body)
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]


def test_a_webhook_is_that_of_the_job(client, predict):
    asked = {"webhook": "not an address", "webhook_events_filter": ["completed"]}
    answer = predict({}, around=asked)
    assert [error["field"] for error in answer.get_json()["errors"]] == ["webhook"]
