"""A sweep: each of its images is queued, claimed, rendered and shown with its own parameters and model files."""

from __future__ import annotations

import time
from io import BytesIO

import pytest
from PIL import Image as Picture
from sqlalchemy import text

from api.services import EXTENSION, Services
from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.errors import NotUnderstood
from shared.infotext import reader
from shared.media.storage import key
from shared.models.model_set import ModelSet
from shared.params.render import RenderParams
from shared.queue import deadlines, holds, transitions
from shared.queue.submit import cost, memory_class, submit
from tests.support.admissions import CHECKPOINT, admission, sweep
from tests.support.browsing import look
from tests.support.queueing import Farmhand
from tests.support.statements import statements
from tests.support.workers import images, made
from worker.dispatch.claimer import Claimer
from worker.dispatch.slots import Slots
from worker.progress.reporter import Reporter

OTHER = "d" * 64
INK = ModelSet(checkpoint=OTHER, refiner=CHECKPOINT, hashes={"lora:ink": "0123456789ab"})
BASE = RenderParams(
    prompt="a lake", checkpoint="demo [cccccccccc]", vae="none", width=64, height=64, steps=4, seed=40, cfg_scale=5.0
)
VALUES = {"checkpoint": ["demo [cccccccccc]", "ink [dddddddddd]"], "width": [64, 128], "sampler": ["Euler a", "Heun"]}
FILES = {"ink [dddddddddd]": INK}


@pytest.fixture(scope="module")
def services(standing_app) -> Services:
    return standing_app.extensions[EXTENSION]


@pytest.fixture(scope="module")
def sessions(services):
    return services.sessions


@pytest.fixture(scope="module")
def client(standing_app):
    return standing_app.test_client()


@pytest.fixture(scope="module")
def rendered(services, sessions) -> int:
    """The id of a sweep over three axes that a worker has rendered."""
    job_id = transact(sessions, lambda session: submit(session, sweep("local", BASE, VALUES, FILES)).job.id)
    with made(services.settings, sessions) as worker:
        slots = Slots(worker, Claimer(worker), Reporter(worker.events), on_free=lambda: None, on_lost=lambda: None)
        for _ in range(8):
            slots.consume(was_passed=False)
    return job_id


def test_every_image_is_queued_in_a_lane_of_its_own(sessions, rendered):
    rows = images(sessions, rendered)
    cells = sweep("local", BASE, VALUES, FILES).cells
    assert [row.changes for row in rows] == [cell.changes for cell in cells]
    assert [row.checkpoint for row in rows] == [CHECKPOINT] * 4 + [OTHER] * 4
    assert {row.companions for row in rows[:4]} == {""}
    assert {row.companions for row in rows[4:]} == {INK.companions}
    assert [row.models for row in rows[3:5]] == [None, INK.to_stored()]
    assert [(row.cost, row.memory_class) for row in rows] == [
        (cost(cell.params), memory_class(cell.params)) for cell in cells
    ]


def test_every_picture_carries_the_parameters_of_its_cell(client, services, sessions, rendered):
    for row in images(sessions, rendered):
        assert row.state == "succeeded", row.reason
        picture = services.storage.get(key(rendered, row.index, row.attempt, "picture"))
        with Picture.open(BytesIO(picture)) as opened:
            said = reader.read(opened.text["parameters"]).params
        asked = (said["checkpoint"], said["width"], said.get("sampler", "Euler a"), said["seed"], said["cfg_scale"])
        assert asked == (row.changes["checkpoint"], row.changes["width"], row.changes["sampler"], 40, 5.0)
        assert said.get("count", 1) == 1
        link = f"/api/v1/jobs/{rendered}/images/{row.index}/picture.png"
        assert client.get(link).data == picture


def test_the_api_tells_the_axes_and_what_each_image_changes(client, rendered):
    job = client.get(f"/api/v1/jobs/{rendered}").get_json()
    assert [(axis["field"], axis["label"], axis["values"]) for axis in job["axes"]] == [
        ("checkpoint", "Checkpoint", VALUES["checkpoint"]),
        ("width", "Width", ["64", "128"]),
        ("sampler", "Sampler", VALUES["sampler"]),
    ]
    assert (job["params"]["count"], job["not_understood"]) == (8, {})
    image = job["images"][5]
    assert (image["cell"], image["titles"]) == ([1, 0, 1], ["ink [dddddddddd]", "64", "Heun"])
    assert image["changes"] == {"checkpoint": "ink [dddddddddd]", "width": 64, "sampler": "Heun"}
    assert image["seed"] == 40


def test_a_plain_job_has_no_axes(client, sessions):
    job_id = transact(sessions, lambda session: submit(session, admission("local", BASE)).job.id)
    job = client.get(f"/api/v1/jobs/{job_id}").get_json()
    transact(sessions, lambda session: transitions.cancel(session, EVERYBODYS, job_id))
    assert job["axes"] == []
    assert [(image["cell"], image["titles"], image["changes"]) for image in job["images"]] == [([], [], None)]


def test_the_page_heads_each_picture_with_its_titles(client, rendered):
    page = look(client, f"/jobs/{rendered}?image=6")
    assert "Checkpoint: ink [dddddddddd] Width: 128 Sampler: Euler a" in page.text
    assert "Varies" in page.text
    assert len(page.all("a", href=f"/?from={rendered}&image=6")) == 1
    assert "· Width 64, 128 · Sampler Euler a, Heun" in look(client, "/jobs").text


@pytest.mark.parametrize("query", ["", "&to=hires"])
def test_the_form_takes_over_the_parameters_of_one_cell(client, rendered, query):
    page = look(client, f"/?from={rendered}&image=7{query}")
    assert (page.value("width"), page.value("seed"), page.value("count")) == ("128", "40", "1")
    assert "selected" in page.all("option", value="Heun")[0].attributes


@pytest.fixture
def hand(sessions) -> Farmhand:
    return Farmhand(sessions)


def test_cells_are_cancelled_retried_held_and_expire_as_images_do(sessions, hand):
    def job(**scheduling: object) -> int:
        return hand.run(submit, sweep("ann", BASE, {"steps": [2, 3]}, **scheduling)).job.id

    job_id = job()
    hand.run(transitions.cancel, EVERYBODYS, job_id, 1)
    assert hand.run(transitions.retry, EVERYBODYS, job_id, 1) == 1
    hand.run(holds.hold, EVERYBODYS, job_id, by="ann")
    hand.run(holds.release, EVERYBODYS, job_id, by="ann")
    worker = hand.worker()
    first, second = worker.claim(), worker.claim()
    assert (first.params.steps, second.params.steps) == (2, 3)
    hand.finish(first)
    hand.run(transitions.fail, second, "no")
    assert hand.run(transitions.retry, EVERYBODYS, job_id) == 1
    again = worker.claim()
    assert (again.params.steps, again.attempt) == (3, 2)
    hand.finish(again)
    assert hand.job(job_id).state == "succeeded"
    late = job(expires_at="2000-01-01T00:00:00Z")
    assert hand.run(deadlines.move_due).cancelled == 2
    assert [image.changes for image in hand.images(late)] == [{"steps": 2}, {"steps": 3}]


def test_why_a_cell_waits_is_told_of_its_own_files(client, services, sessions, hand, rendered):
    files = {"ink [dddddddddd]": INK}
    job_id = hand.run(submit, sweep("local", BASE, {"checkpoint": ["ink [dddddddddd]"]}, files)).job.id
    waiting = client.get(f"/api/v1/jobs/{job_id}").get_json()["waiting"]
    assert "ink" in {file["name"].split()[0] for file in waiting["missing"]}
    hand.run(transitions.cancel, EVERYBODYS, job_id)


def test_a_cell_of_a_newer_version_is_shown_and_left_alone(client, sessions, hand):
    job_id = hand.run(submit, sweep("ben", BASE, {"steps": [2, 3]})).job.id
    newer = text("""UPDATE images SET changes = '{"mood": "blue", "steps": 3}' WHERE job_id = :id AND index = 1""")
    hand.run(lambda session: session.execute(newer, {"id": job_id}))
    worker = hand.worker()
    assert worker.claim().params.steps == 2
    strange = worker.claim()
    with pytest.raises(NotUnderstood, match="mood"):
        _ = strange.params
    hand.run(lambda session: session.execute(text("UPDATE jobs SET owner = 'local' WHERE id = :id"), {"id": job_id}))
    job = client.get(f"/api/v1/jobs/{job_id}").get_json()
    assert (job["not_understood"], job["images"][1]["changes"]) == ({"mood": "blue"}, {"mood": "blue", "steps": 3})
    assert "mood: blue" in look(client, f"/?from={job_id}&image=1").text
    hand.run(transitions.cancel, EVERYBODYS, job_id)


def test_axes_of_a_newer_version_are_left_alone(client, hand):
    job_id = hand.run(submit, sweep("local", BASE, {"steps": [2, 3]})).job.id
    newer = text("""UPDATE jobs SET params = jsonb_set(params, '{sweep,folds}', '4') WHERE id = :id""")
    hand.run(lambda session: session.execute(newer, {"id": job_id}))
    claim = hand.worker().claim()
    with pytest.raises(NotUnderstood, match="sweep"):
        _ = claim.params
    job = client.get(f"/api/v1/jobs/{job_id}").get_json()
    assert (job["axes"], list(job["not_understood"])) == ([], ["sweep"])
    assert look(client, f"/jobs/{job_id}").all("article", id="image-1")
    hand.run(transitions.cancel, EVERYBODYS, job_id)


def test_a_thousand_cells_are_recorded_by_one_statement_in_a_moment(sessions, hand):
    wanted = sweep("eve", BASE, {"prompt": [f"number {at}" for at in range(40)], "seed": [*range(25)]})
    with statements(sessions) as sent:
        began = time.thread_time()
        job_id = hand.run(submit, wanted).job.id
        seconds = time.thread_time() - began
    assert sum("INTO images" in one for one in sent) == 1
    assert seconds < 0.15, f"{seconds:.3f} s on this thread"
    rows = hand.images(job_id)
    assert [row.changes["seed"] for row in rows[:26]] == [*range(25), 0]
    assert rows[-1].changes == {"prompt": "number 39", "seed": 24}
    assert (len(rows), rows[999].index) == (1000, 999)


def test_a_job_whose_cells_are_not_its_images_is_no_admission():
    wanted = sweep("eve", BASE, {"seed": [1, 2]})
    with pytest.raises(ValueError, match="2 cells for a job of 3 images"):
        type(wanted)(
            wanted.owner,
            wanted.params.model_copy(update={"count": 3}),
            wanted.models,
            axes=wanted.axes,
            cells=wanted.cells,
        )
