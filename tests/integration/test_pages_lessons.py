"""The page of lessons without scripts: each experiment is run, found again, and opened in the form."""

from __future__ import annotations

import pytest

from api.pages import vary
from api.services import EXTENSION
from shared.jobs.lessons import BY_NAME, LESSONS
from tests.conftest import checkpoints_of
from tests.support.browsing import look, send

CELLS = {"words": 16, "guidance": 16, "samplers": 16, "steps": 20, "seeds": 4, "checkpoints": 8, "made": 1}


@pytest.fixture(scope="module")
def app(standing_app):
    checkpoints_of(standing_app.extensions[EXTENSION].sessions)("large, and other", native_size=512)
    return standing_app


def titles(client):
    return [one["title"] for one in client.get("/api/v1/checkpoints").get_json()["checkpoints"]]


def run(client, lesson, **others):
    first, second = titles(client)
    return send(client, "/lessons", "/lessons", lesson=lesson, **({"checkpoint": first, "other": second} | others))


def job_of(client, answer):
    assert answer.status_code == 303
    return client.get(f"/api/v1{answer.location}").get_json()


@pytest.mark.parametrize("name", BY_NAME)
def test_each_experiment_is_one_job_on_any_checkpoint(client, name):
    first, second = titles(client)
    for checkpoint, other, size in ((first, second, 64), (second, first, 512)):
        job = job_of(client, run(client, name, checkpoint=checkpoint, other=other))
        assert sum(job["counts"].values()) == CELLS[name]
        assert (job["params"]["checkpoint"], job["params"]["width"]) == (checkpoint, size)
        cells = {(image["seed"], str(image.get("changes"))) for image in job["images"]}
        assert len(cells) == CELLS[name] - (name == "seeds")  # two of its pictures are the same
    assert len({image["changes"].get("checkpoint") for image in job["images"]} if job["axes"] else {1}) == (
        2 if name == "checkpoints" else 1
    )


def test_the_latest_run_of_an_experiment_stands_in_its_card(client):
    run(client, "guidance")
    latest = job_of(client, run(client, "guidance"))["id"]
    client.post("/api/v1/jobs", json={"prompt": "something else"})
    shown = look(client, "/lessons")
    parts = {one.attributes["data-part"]: one.attributes for one in shown.all("div", **{"class": "latest"})}
    assert parts["lesson-guidance"]["data-events"] == f"/api/v1/jobs/{latest}/events"
    assert {one.attributes["href"] for one in shown.all("a")} >= {f"/jobs/{latest}", f"/jobs/{latest}?image=0#opened"}
    ids = [one.attributes["id"] for one in shown.elements if "id" in one.attributes]
    assert len(ids) == len({*ids})


def test_a_run_that_stays_goes_back_to_the_page_and_says_so(client):
    first, second = titles(client)
    answer = run(client, "seeds", back="/lessons", checkpoint=second, other=first)
    assert answer.location.startswith("/lessons?")
    assert answer.location.endswith("#seeds")
    after = look(client, answer.location.partition("#")[0])
    assert "is in the queue as job" in after.text
    assert [one.attributes["value"] for one in after.all("option", selected=None)] == [second, first]


def test_an_experiment_opens_in_the_form_with_its_axes(client):
    first, second = titles(client)
    answer = send(client, "/lessons", "/lessons", open="checkpoints", checkpoint=first, other=second)
    form = look(client, answer.location)
    assert f'"{second}"' in form.text
    assert {"checkpoint", "seed"} <= {one.attributes["value"] for one in form.all("option", selected=None)}


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_rows_typed_as_the_form_has_them_make_the_same_sweep(client, lesson):
    axes = {"axes": lesson.request(*titles(client))["sweep"]["axes"]}
    given = {"prompt": lesson.params["prompt"], "seed": 7}
    rows = vary.read(vary.typed(lesson.varying(*titles(client))))
    said, typed = (
        client.post("/api/v1/sweeps/preview", json=given | {"sweep": sweep}).get_json()
        for sweep in (axes, rows["sweep"])
    )
    for preview in (said, typed):
        assert (preview["images"], preview["problems"]) == (CELLS[lesson.name], [])
    assert said["axes"] == typed["axes"] or lesson.name == "seeds"  # some of which are drawn


def test_unknown_checkpoints_and_experiments_are_refused(client):
    before = client.get("/api/v1/jobs").get_json()["jobs"][0]["id"]
    refused = run(client, "guidance", checkpoint="nobody")
    assert "nobody" in look(client, refused.location.partition("#")[0]).text
    assert run(client, "else").status_code == 404
    look(client, "/?lesson=words&checkpoint=%00&other=%22")
    assert client.get("/api/v1/jobs").get_json()["jobs"][0]["id"] == before


def test_each_text_is_chinese_for_those_who_read_it(client):
    run(client, "seeds")
    look(client, "/lessons")  # says what was done before, in English
    shown = look(client, "/lessons?lang=zh").text
    for lesson in BY_NAME.values():
        for text in (lesson.title, lesson.about, lesson.look_for):
            assert text not in shown
    assert "课程" in shown
