"""The studio without scripts: strips, what a picture is used for again, and what the form stays in sight for."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.pages import prefill, vary
from api.services import EXTENSION
from api.use_cases import jobs
from shared.accounts.principal import LOCAL
from tests.support.browsing import look, page, send

FIELDS = {"prompt": "a tower", "negative_prompt": "fog", "steps": "4", "seed": "7", "cfg_scale": "6"}


@pytest.fixture(scope="module")
def app(standing_app: Flask) -> Flask:
    return standing_app


def made(client: FlaskClient, **fields: str) -> int:
    answer = send(client, "/jobs", **(FIELDS | fields))
    assert answer.status_code == 303, page(answer).text
    return int(answer.location.rpartition("/")[2])


def params(client: FlaskClient, job: int) -> dict[str, object]:
    return client.get(f"/api/v1/jobs/{job}").get_json()["params"]


def latest(client: FlaskClient) -> int:
    return client.get("/api/v1/jobs").get_json()["jobs"][0]["id"]


def test_a_part_of_a_pictures_parameters_fills_the_form_in_and_names_its_fields(client):
    job = made(client, count="2")
    form = look(client, f"/?from={job}&image=1&use=prompt")
    assert [form.value(name) for name in ("seed", "cfg_scale")] == ["-1", "7"]
    assert (form.all("form", **{"class": "composer"})[0].attributes["data-filled"]) == "prompt negative_prompt"
    assert look(client, f"/?from={job}&image=1&use=seed").value("seed") == "8"
    whole = look(client, f"/?from={job}&image=1&use=all")
    assert [whole.value(name) for name in ("seed", "cfg_scale", "count")] == ["8", "6", "1"]
    assert whole.all("form", **{"data-filled": "all"})


def test_examples_fill_the_form_in_and_others_leave_it_as_it_is(client):
    assert prefill.EXAMPLES[5] in look(client, "/?try=6").markup
    assert look(client, "/?try=7").all("form", **{"data-filled": ""})


def test_a_picture_is_made_again_with_another_seed_or_as_four_like_it(client):
    job = made(client)
    send(client, f"/jobs/{job}/images/0/remix?as=seed")
    other = params(client, latest(client))
    assert other["seed"] != 7
    assert params(client, job) | {"seed": 0} == other | {"seed": 0}
    assert send(client, f"/jobs/{job}/images/0/remix?as=more", back="/").location == f"/#job-{latest(client)}"
    more = params(client, latest(client))
    assert (more["seed"], more["count"], more["noise"]["variation_strength"]) == (7, 4, 0.2)
    assert "4 pictures queued as job" in look(client, "/strips").text


@pytest.mark.parametrize("path", ["images/0/remix?as=else", "images/9/remix?as=seed"])
def test_what_cannot_be_made_of_a_picture_is_not_found(client, path):
    job, before = made(client), latest(client)
    assert send(client, f"/jobs/{job}/{path}").status_code == 404
    assert latest(client) == before


def test_a_job_is_submitted_once_however_often_its_key_comes(client):
    fields = FIELDS | {"csrf_token": look(client, "/").value("csrf_token"), "back": "/"}
    keyed = {"Idempotency-Key": "one-press"}
    first, second = (client.post("/jobs", data=fields, headers=keyed) for _ in range(2))
    assert first.location == second.location == f"/#job-{latest(client)}"


def test_strips_and_the_list_say_what_is_special_about_a_job(client):
    made(client, prompt="a path", cfg_scale="7", steps="20", negative_prompt="")
    made(client, prompt="a path", cfg_scale="15", steps="20", negative_prompt="")
    made(client, prompt="a hill", cfg_scale="7", steps="30", negative_prompt="")
    strips = look(client, "/strips")
    for shown in (strips, look(client, "/jobs")):
        assert "Steps 30" in shown.text
        assert "CFG scale 15, was 7" in shown.text


def test_rows_that_vary_make_a_sweep_and_are_refused_in_their_places(client):
    rows = {"sweep.axes.0.field": "cfg_scale", "sweep.axes.0.values": "7, 15", "sweep.axes.2.field": "sampler"}
    wrong = send(client, "/jobs", **FIELDS, **rows, **{"sweep.axes.2.values": "Euler, Nobody"})
    assert wrong.status_code == 422
    assert "Vary, row 2" in page(wrong).text
    assert page(wrong).all("p", id="sweep.axes.1.values-error")
    assert page(wrong).all("option", value="cfg_scale", selected=None)
    right = rows | {"sweep.axes.2.values": "Euler, LMS", "sweep.seeds": "on"}
    assert send(client, "/vary", **FIELDS, **right).get_data(as_text=True).startswith("4 pictures")
    right |= {"count": "3"}  # left from a job before: each cell is one image
    assert "Images 3 does not count" in send(client, "/vary", **FIELDS, **right).get_data(as_text=True)
    job = client.get(f"/api/v1/jobs/{made(client, **right)}").get_json()
    assert {axis["field"]: axis["values"] for axis in job["axes"]} == {
        "cfg_scale": ["7", "15"],
        "sampler": ["Euler", "LMS"],
    }
    assert sorted(image["seed"] for image in job["images"]) == [7, 8, 9, 10]
    assert send(client, "/jobs", **FIELDS, **right, **{"sweep.draft": "9" * 5000}).status_code == 422


@pytest.mark.parametrize(("values", "pictures"), [("", 6), ("random 2", 2), ("随机2", 2), ("random 999", None)])
def test_some_of_a_prompt_s_choices_are_drawn_at_random(client, values, pictures):
    rows = {"sweep.axes.0.field": "dynamic_prompts", "sweep.axes.0.values": values}
    asked = FIELDS | {"prompt": "a {red|green|blue} {boat|tower}"}
    told = send(client, "/vary", **asked, **rows).get_data(as_text=True)
    assert told.startswith(f"{pictures} pictures" if pictures else "Vary, row 1")


def test_what_varies_is_found_by_its_words_in_every_language(client):
    shown = look(client, "/")
    found_by = {one.attributes["value"]: one.attributes.get("data-found-by") for one in shown.all("option")}
    assert {"Sampler", "采样方法"} <= {*found_by["sampler"].split()}
    assert found_by["dynamic_prompts"].startswith("Choices of the prompt")


def test_a_sweep_is_edited_and_rendered_again_with_what_varies_in_it(app, client):
    axes = {
        "cfg_scale": "7, 15",
        "sampler_schedule": "Euler, DPM++ 2M / Karras",
        "prompt_replace": 'tower, "", old mill',
    }
    rows = {
        f"sweep.axes.{row}.{name}": text
        for row, one in enumerate(axes.items())
        for name, text in zip(("field", "values"), one, strict=True)
    }
    job = made(client, **rows, **{"sweep.seeds": "on"})
    again = look(client, f"/?from={job}")
    assert [
        one.attributes["value"] for one in again.all("option", selected=None) if one.attributes["value"] in axes
    ] == [*axes]
    assert (again.value("count"), bool(again.all("input", id="sweep.seeds", checked=None))) == ("1", True)
    asked = vary.read(vary.of_job(jobs.job(app.extensions[EXTENSION], LOCAL, job)))
    previewed = client.post("/api/v1/sweeps/preview", json=params(client, job) | asked).get_json()
    wanted = client.get(f"/api/v1/jobs/{job}").get_json()["axes"]
    assert "old mill" in again.text
    assert "Type the values again" not in again.text
    untold = {"sweep.axes.0.field": "prompts", "sweep.axes.0.values": "a mill\na tower"}
    assert "Type the values again of what varied: Prompt." in look(client, f"/?from={made(client, **untold)}").text
    assert {axis["field"]: axis["values"] for axis in previewed["axes"]} == {
        one["field"]: one["values"] for one in wanted
    }


def test_a_draft_with_fewer_steps_is_approved_on_its_page_and_opens_again_as_it_was_asked_for(client):
    rows = {"sweep.axes.0.field": "cfg_scale", "sweep.axes.0.values": "7, 15"}
    job = made(client, **rows, **{"steps": "4", "sweep.draft.steps": "2"})
    form = look(client, f"/?from={job}")
    assert [form.value(name) for name in ("count", "steps", "sweep.draft.steps")] == ["1", "4", "2"]
    assert "A draft with 2 of 4 steps." in look(client, f"/jobs/{job}").text
    approved = send(client, f"/jobs/{job}/approve").location
    assert approved == f"/jobs/{latest(client)}" != f"/jobs/{job}"
    assert "A draft" not in look(client, approved).text
