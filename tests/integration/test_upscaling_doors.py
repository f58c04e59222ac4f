"""Pictures to enlarge: over the API, and from the page of a job."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cli import jobs as commands
from shared.media.storage import key
from shared.params.upscale import Upscale
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
    assert client.get("/api/v1/jobs").get_json()["jobs"][0]["id"] == job["id"]


def test_every_view_says_what_is_done_to_the_pictures_and_names_no_steps(client, capsys):
    body = {"upscale": {"pictures": [{"picture": data_url()}] * 3, "scale": 4, "upscaler": "4x-sharp"}}
    job = client.post("/api/v1/jobs", json=body).get_json()
    client.post(job["links"]["cancel"])
    words = f"3 pictures enlarged 4 times by {UPSCALER}"
    for path in ("/", "/jobs", f"/jobs/{job['id']}", f"/jobs/{job['id']}/delete"):
        shown = look(client, path).text
        assert words in shown, path
        assert not [word for word in ("0 × 0", "20 steps", "seed -1", "Again") if path != "/" and word in shown], path
    ended = client.get(job["links"]["self"]).get_json()
    assert [image["steps"] for image in ended["images"]] == [0] * 3
    capsys.readouterr()  # the log, whose ids and seconds may hold any digits
    commands._job(ended)
    said = capsys.readouterr().out
    assert words in " ".join(said.split())
    assert not [word for word in ("0×0", "/20", "-1") if word in said]
    assert commands._job_row(ended)[-1].startswith("3 pictures enlarged 4 times")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 80, "height": 60}, "1 picture enlarged to 80 × 60 pixels by Lanczos"),
        ({"height": 60, "scale": 3}, "1 picture enlarged to 60 pixels of height by Lanczos"),
        ({"scale": 1.5, "second": "Nearest"}, "1 picture enlarged 1.5 times by Lanczos and Nearest"),
        ({"scale": 1}, "1 picture kept at its size by Lanczos"),
    ],
)
def test_words_for_an_enlarging_job(options, words):
    assert Upscale(pictures=({"picture": "a" * 64},), **options).words == words


def test_a_job_that_needs_no_file_waits_for_none(client, sessions):
    body = {"upscale": {"pictures": [{"picture": data_url()}] * 2}}
    job = client.post("/api/v1/jobs", json=body).get_json()["id"]
    Farmhand(sessions).worker(slots=1).claim()
    assert client.get(f"/api/v1/jobs/{job}").get_json()["waiting"]["code"] == "starting"


def test_a_program_is_told_of_every_wrong_field(client):
    body = {"prompt": "sea", "upscale": {"pictures": [{"picture": "x"}], "scale": 99, "upscaler": "4x-shrap"}}
    fields = {one["field"] for one in client.post("/api/v1/jobs", json=body).get_json()["errors"]}
    assert fields >= {"upscale.scale"}


def test_the_page_of_a_job_enlarges_a_picture_in_a_job_of_its_own(client, services, sessions, checkpoint_factory):
    job = client.post("/api/v1/jobs", json={"prompt": "sea", "seed": 7}).get_json()["id"]
    hand = Farmhand(sessions)
    claim = hand.worker().claim()
    pixels = np.full((64, 64, 3), 90, np.uint8)
    services.storage.put(
        key(job, 0, claim.attempt, "picture", "png"), picture(pixels, "sea\nSteps: 20, Seed: 7", "png")
    )
    hand.run(transitions.finish, claim, 2048)
    page = look(client, f"/jobs/{job}")
    assert UPSCALER in page.text
    assert not page.all("input", **{"aria-label": "Search Upscaler"}), "three choices need no search"
    for number in range(10):
        checkpoint_factory(f"{number}x-more", kind="upscaler")
    assert len(look(client, f"/jobs/{job}").all("input", **{"aria-label": "Search Upscaler"})) == 1
    answer = send(client, f"/jobs/{job}/images/0/upscale", scale="4", upscaler=UPSCALER)
    assert answer.status_code == 303, answer.text
    enlarging = client.get(f"/api/v1{answer.location}").get_json()
    assert enlarging["id"] == job + 1
    wanted = enlarging["params"]["upscale"]
    assert (wanted["scale"], wanted["upscaler"]) == (4, UPSCALER)
    assert wanted["pictures"][0]["parameters"].startswith("sea\n")
    assert "faces" not in (name.attributes.get("name") for name in page.all("select"))
    checkpoint_factory("GFPGANv1.4", sha256="3" * 64, kind="face-restorer")
    assert "faces by GFPGANv1.4" in look(client, f"/jobs/{job}").text
    answer = send(client, f"/jobs/{job}/images/0/upscale", upscaler=UPSCALER, faces="GFPGANv1.4 [3333333333]")
    restoring = client.get(f"/api/v1{answer.location}").get_json()["params"]["upscale"]
    assert restoring["faces"]["restorer"] == "GFPGANv1.4 [3333333333]"
    assert wanted["faces"] is None
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
