"""Faces to restore: what is admitted and refused, what files of pictures say, and the doors."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from shared.admission.salvage import fit
from shared.infotext.reader import read
from shared.infotext.writer import text, upscale_text
from shared.params.render import RenderParams
from shared.params.upscale import Upscale
from shared.settings import Limits
from tests.support.browsing import look, send
from tests.support.queueing import Farmhand
from worker.encode import picture

RESTORER = "GFPGANv1.4 [1111111111]"
WHERE = "the file of a face restorer, such as GFPGANv1.4.pth, in the folder GFPGAN of the models folder (FARM_MODELS)"


@pytest.fixture(autouse=True)
def _demo(checkpoint_factory):
    checkpoint_factory("demo", native_size=64)


@pytest.fixture
def restorers(checkpoint_factory):
    for name, digit, algorithm in (
        ("GFPGANv1.3", "3", "GFPGAN"),
        ("GFPGANv1.4", "1", "GFPGAN"),
        ("codeformer", "2", "CodeFormer"),
    ):
        details = {"algorithm": algorithm, "scale": 1}
        checkpoint_factory(name, sha256=digit * 64, kind="face-restorer", architecture=None, details=details)


def data_url():
    out = BytesIO()
    Image.new("RGB", (20, 10), "red").save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def refused(client, body):
    answer = client.post("/api/v1/jobs", json=body)
    assert answer.status_code == 422, answer.get_json()
    return {one["field"]: (one["message"], one["accepted"]) for one in answer.get_json()["errors"]}


@pytest.mark.usefixtures("restorers")
@pytest.mark.parametrize("name", ["GFPGANv1.4", "gfpganv1.4.safetensors", "1111111111", RESTORER, "gfpgan"])
def test_a_job_has_its_face_restorer_by_every_name(client, sessions, name):
    job = client.post("/api/v1/jobs", json={"prompt": "a face", "faces": {"restorer": name, "strength": 0.5}})
    assert job.get_json()["params"]["faces"] == {"restorer": RESTORER, "strength": 0.5, "fidelity": 0.5}
    claim = Farmhand(sessions).worker().claim()
    assert claim.models.face_restorer == "1" * 64
    assert claim.models.companions == ""
    assert claim.params.faces.restorer == RESTORER


@pytest.mark.usefixtures("restorers")
def test_pictures_to_enlarge_have_one_too(client, sessions):
    body = {"upscale": {"pictures": [{"picture": data_url()}], "faces": {"restorer": "GFPGANv1.4"}}}
    job = client.post("/api/v1/jobs", json=body).get_json()
    assert job["params"]["upscale"]["faces"]["restorer"] == RESTORER
    claim = Farmhand(sessions).worker().claim()
    assert (claim.checkpoint, claim.models.face_restorer) == ("none", "1" * 64)
    assert f"faces restored by {RESTORER}" in look(client, f"/jobs/{job['id']}").text


@pytest.mark.parametrize(("group", "at"), [({"prompt": "a face"}, "faces"), ({}, "upscale.faces")])
def test_without_a_file_a_refusal_says_which_one_belongs_where(client, group, at):
    faces = {"restorer": "gfpgan"}
    body = group | {"faces": faces} if group else {"upscale": {"pictures": [{"picture": data_url()}], "faces": faces}}
    assert refused(client, body) == {f"{at}.restorer": ("There is no face restorer 'gfpgan'", WHERE)}


@pytest.mark.usefixtures("restorers")
@pytest.mark.parametrize(
    ("faces", "field", "message", "accepted"),
    [
        ({"restorer": "GFPGANv1.5"}, "restorer", "There is no face restorer 'GFPGANv1.5'", RESTORER),
        ({"restorer": "demo"}, "restorer", "demo is a whole checkpoint, not a face restorer", RESTORER),
        ({"restorer": " "}, "restorer", "is empty", "GFPGANv1.4.pth"),
        ({}, "restorer", "is missing", "the name or hash of a face restorer"),
        ({"restorer": "gfpgan", "strength": 0}, "strength", "no face would change", "above 0"),
        ({"restorer": "gfpgan", "strength": 1.5}, "strength", "", "a number from 0 to 1"),
        ({"restorer": "gfpgan", "fidelity": 0.7}, "fidelity", "has no effect on GFPGANv1.4, which is a GFPGAN", "Code"),
        ({"restorer": "gfpgan", "weight": 0.7}, "weight", "is not a parameter", "strength"),
    ],
)
def test_what_cannot_be_done_is_refused(client, faces, field, message, accepted):
    said = refused(client, {"prompt": "a face", "faces": faces})[f"faces.{field}"]
    assert message in said[0]
    assert accepted in said[1]


@pytest.mark.usefixtures("restorers")
def test_faces_of_a_render_are_refused_beside_pictures_to_enlarge(client):
    body = {"upscale": {"pictures": [{"picture": data_url()}]}, "faces": {"restorer": "gfpgan"}}
    said = refused(client, body)
    assert said == {"faces": ("has no effect on a job that enlarges pictures", "upscale.faces")}


@pytest.mark.usefixtures("restorers")
def test_codeformer_has_a_fidelity(client):
    job = client.post("/api/v1/jobs", json={"prompt": "a", "faces": {"restorer": "codeformer", "fidelity": 0.9}})
    assert job.get_json()["params"]["faces"]["fidelity"] == 0.9


def test_a_restorer_that_cannot_be_used_is_refused_with_the_reason(client, checkpoint_factory):
    reason = "is a CodeFormer face restorer, whose licence forbids commercial use."
    checkpoint_factory("codeformer", kind="face-restorer", usable=False, reason=reason)
    said = refused(client, {"prompt": "a", "faces": {"restorer": "codeformer"}})
    assert said["faces.restorer"][0] == f"codeformer cannot be used: {reason}"


# Files of pictures.


@pytest.mark.usefixtures("restorers")
@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Face restoration: GFPGAN", "GFPGAN"),
        ("Face restoration: GFPGAN, Face restorer: GFPGANv1.4, Face restorer hash: 1111111111", RESTORER),
        ("Face restoration: GFPGAN, Face restorer: other, Face restorer hash: 1111111111", RESTORER),
    ],
)
def test_a_picture_that_names_a_restorer_is_rendered_with_it_again(sessions, client, said, found):
    params = read(f"a face\nSteps: 4, Sampler: Euler, Seed: 1, {said}, RNG: CPU").params
    fitting = fit(sessions, params, "ann", Limits())
    assert (fitting.params["faces"]["restorer"], fitting.left_out) == (found, ())
    job = client.post("/api/v1/jobs", json=fitting.params).get_json()
    assert job["params"]["faces"]["restorer"] == RESTORER


@pytest.mark.usefixtures("restorers")
def test_a_restorer_that_is_not_here_is_left_out_with_a_note(sessions):
    given = {"prompt": "a face", "faces": {"restorer": "RestoreFormer", "strength": 0.5}}
    fitting = fit(sessions, given, "ann", Limits())
    assert fitting.params == {"prompt": "a face"}
    assert fitting.left_out == ("faces.restorer: There is no face restorer 'RestoreFormer'",)


@pytest.mark.usefixtures("restorers")
def test_a_picture_is_asked_for_again_with_its_faces(client):
    asked = {"prompt": "a face", "seed": 7, "faces": {"restorer": "gfpgan", "strength": 0.25}}
    job = client.post("/api/v1/jobs", json=asked).get_json()
    written = text(RenderParams.from_stored(job["params"]), version="1")
    png = picture(np.zeros((8, 8, 3), np.uint8), written, "png")
    answer = client.post("/api/v1/png-info", data={"file": (BytesIO(png), "a.png")}).get_json()
    assert answer["left_out"] == []
    again = client.post("/api/v1/jobs", json=answer["params"]).get_json()
    assert again["params"] == job["params"]


def test_results_of_enlarging_say_what_was_done_to_faces():
    def said(**faces):
        return upscale_text(Upscale(pictures=[{"picture": "a"}], faces=faces), (8, 8))

    assert said(restorer=RESTORER, strength=0.8).endswith("Postprocess GFPGAN visibility: 0.8")
    assert said(restorer="codeformer [2222222222]", fidelity=0.25).endswith(
        "Postprocess CodeFormer visibility: 1, Postprocess CodeFormer weight: 0.25"
    )


# Pages.


def test_the_form_says_which_file_belongs_where_if_there_is_none(client):
    page = look(client, "/")
    assert f"There is no face restorer here. Put {WHERE}." in page.text


@pytest.mark.usefixtures("restorers")
def test_the_form_offers_the_restorers(client):
    page = look(client, "/")
    assert "There is no face restorer here" not in page.text
    assert f'<option value="{RESTORER}">' in page.markup
    asked = send(client, "/jobs", **{"prompt": "a face", "faces.restorer": RESTORER, "faces.strength": "0.5"})
    number = asked.location.rpartition("/")[2]
    job = client.get(f"/api/v1/jobs/{number}").get_json()
    assert job["params"]["faces"] == {"restorer": RESTORER, "strength": 0.5, "fidelity": 0.5}
    shown = look(client, f"/jobs/{number}").text
    assert "Restore faces" in shown
    assert RESTORER in shown
    assert "selected" in look(client, f"/?from={number}").markup.partition(f'<option value="{RESTORER}"')[2][:12]


@pytest.mark.usefixtures("restorers")
def test_the_models_page_lists_the_restorers(client):
    page = look(client, "/models?kind=face-restorer").text
    assert all(name in page for name in ("GFPGANv1.4", "codeformer", "Face restorers"))
