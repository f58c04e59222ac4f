"""Pictures to enlarge: over the API, and from the page of a job."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from shared.media.storage import key
from shared.queue import transitions
from tests.support.browsing import look, send
from tests.support.queueing import Farmhand
from worker.encode import picture

UPSCALER = "4x-sharp [1111111111]"


@pytest.fixture(autouse=True)
def _models(checkpoint_factory):
    checkpoint_factory("demo", native_size=64)
    checkpoint_factory("4x-sharp", sha256="1" * 64, kind="upscaler")


def data_url():
    out = BytesIO()
    Image.new("RGB", (20, 10), "red").save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def test_a_program_submits_pictures_and_its_worker_claims_them(client, sessions):
    body = {"upscale": {"pictures": [{"picture": data_url()}] * 2, "scale": 4, "upscaler": "4x-sharp"}}
    answer = client.post("/api/v1/jobs", json=body)
    job = answer.get_json()
    assert answer.status_code == 202
    assert job["params"]["upscale"]["upscaler"] == UPSCALER
    assert job["counts"]["queued"] == 2
    claim = Farmhand(sessions).worker().claim()
    assert (claim.checkpoint, claim.models.upscaler, claim.models.checkpoint) == ("1" * 64, "1" * 64, None)
    assert len(claim.params.upscale.pictures) == 1
    shown = look(client, f"/jobs/{job['id']}").text
    assert UPSCALER in shown
    assert "4 times" in shown
    assert client.get("/api/v1/jobs").get_json()["jobs"][0]["id"] == job["id"]
    assert look(client, "/jobs")


def test_a_job_that_needs_no_file_waits_for_none(client, sessions):
    body = {"upscale": {"pictures": [{"picture": data_url()}] * 2}}
    job = client.post("/api/v1/jobs", json=body).get_json()["id"]
    Farmhand(sessions).worker(slots=1).claim()
    assert client.get(f"/api/v1/jobs/{job}").get_json()["waiting"]["code"] == "starting"


def test_a_program_is_told_of_every_wrong_field(client):
    body = {"prompt": "sea", "upscale": {"pictures": [{"picture": "x"}], "scale": 99, "upscaler": "4x-shrap"}}
    fields = {one["field"] for one in client.post("/api/v1/jobs", json=body).get_json()["errors"]}
    assert fields >= {"upscale.scale"}


def test_the_page_of_a_job_enlarges_a_picture_in_a_job_of_its_own(client, services, sessions):
    job = client.post("/api/v1/jobs", json={"prompt": "sea", "seed": 7}).get_json()["id"]
    hand = Farmhand(sessions)
    claim = hand.worker().claim()
    pixels = np.full((64, 64, 3), 90, np.uint8)
    services.storage.put(
        key(job, 0, claim.attempt, "picture", "png"), picture(pixels, "sea\nSteps: 20, Seed: 7", "png")
    )
    hand.run(transitions.finish, claim, 2048)
    assert UPSCALER in look(client, f"/jobs/{job}").text
    answer = send(client, f"/jobs/{job}/images/0/upscale", scale="4", upscaler=UPSCALER)
    assert answer.status_code == 303, answer.text
    enlarging = client.get(f"/api/v1{answer.location}").get_json()
    assert enlarging["id"] == job + 1
    wanted = enlarging["params"]["upscale"]
    assert (wanted["scale"], wanted["upscaler"]) == (4, UPSCALER)
    assert wanted["pictures"][0]["parameters"].startswith("sea\n")
    refused = send(client, f"/jobs/{job}/images/0/upscale", scale="9", upscaler=UPSCALER)
    assert refused.status_code == 303, refused.text
    assert refused.location.startswith(f"/jobs/{job}")
    assert "upscale.scale: 9.0 is too large" in look(client, f"/jobs/{job}").text


@pytest.mark.parametrize("size", [{}, {"width": 1001, "height": 502}])
def test_an_enlarged_picture_is_started_from_at_the_size_that_the_farm_chooses(client, services, sessions, size):
    body = {"upscale": {"pictures": [{"picture": data_url()}], **size}}
    job = client.post("/api/v1/jobs", json=body).get_json()["id"]
    hand = Farmhand(sessions)
    claim = hand.worker().claim()
    pixels = np.full((20, 40, 3), 90, np.uint8)
    services.storage.put(key(job, 0, claim.attempt, "picture", "png"), picture(pixels, "", "png"))
    hand.run(transitions.finish, claim, 2048)
    form = look(client, send(client, f"/jobs/{job}/images/0/send", to="img2img").location)
    assert [form.value(name) for name in ("width", "height", "seed")] == ["", "", "-1"]
    assert "checked" in form.all("input", name="img2img.picture")[0].attributes
