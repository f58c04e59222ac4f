"""Versions side by side: whatever a newer one has written, this one answers every request about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from flask import Flask
from sqlalchemy import Connection, event, text

from api.app import create_app
from api.services import EXTENSION, Services
from api.use_cases import jobs
from cli import jobs as cli_jobs
from shared.accounts.principal import LOCAL
from shared.db.sessions import transact
from shared.errors import Unavailable
from shared.media.storage import Kind, key, upload_key
from shared.messaging.events import Progress
from shared.params.groups import Hires
from shared.params.img2img import Img2Img
from shared.params.render import RenderParams
from shared.queue import transitions
from shared.queue.submit import submit
from shared.settings import Settings
from tests.conftest import checkpoints_of
from tests.support.admissions import admission
from tests.support.queueing import Farmhand

SHA256 = "a" * 64
PICTURE_FILE = Path(__file__).parents[2] / "docs" / "images" / "phone.webp"
PLAIN = RenderParams(prompt="the sea", checkpoint="demo [abcdef0123]", vae="none", width=64, height=64, seed=7)
TOMORROW = {
    "mood": "blue",
    "film": {"frames": 5},
    "tiling": "hexagons",
    "sampler": "Euler 5",
    "schedule": "spiral",
    "steps": "as many as it takes",
    "count": [1, 2],
    "noise": {"source": "AMD", "colour": 1},
    "video": {"frames": 24},
    "hires": {"scale": 1.5, "foo": {"bar": 1}, "upscaler": "Sharp"},
    "img2img": {"pictures": [SHA256]},
    "prompt": "<video:waves> the sea",
}


@dataclass(frozen=True)
class Farm:
    """The content of the rows: a job whose images have ended, one in every state, one in a strange file format."""

    ended: int
    running: int
    strange: int


QUERIES = {"/": "?from=1", "/size": f"?source={SHA256}", "/choices": "?field=vae"}
"""Queries of routes that would ask for something else without one."""
KEPT = {"start": [8, 8], "steps": [], "guidance": None, "prompt": [], "negative_prompt": [], "colours": 3}
"""How a picture was made, as a newer version keeps it."""
OTHERWISE = {
    "/api/v1/models/<hash:sha256>/preview.webp": 404,
    "/api/v1/jobs/<id:job_id>/sheet.png": 404,
    "/api/v1/presets/<string:name>": 404,
    "/api/v1/webhooks/<id:webhook_id>": 404,
    "/api/v1/webhooks/<id:webhook_id>/deliveries": 404,
    "/api/v1/webhooks/deliveries/<id:delivery_id>": 404,
    "/webhooks/<id:webhook_id>": 404,
    "/replicate/v1/models/<owner>/<name>": 404,
    "/replicate/v1/models/<owner>/<name>/versions": 404,
    "/replicate/v1/models/<owner>/<name>/versions/<version>": 404,
    "/sign-in/callback": 404,  # no provider signs people in here
    "/sign-in/provider": 404,
    "/s/<token>": 404,
    "/s/<token>/<id:index>.<any(png,jpg,webp):extension>": 404,
    "/s/<token>/<id:index>/thumbnail.webp": 404,
    "/presets/<any(fill,keep,delete):way>": 303,
    "/typed": 303,
    "/from-picture": 303,
    "/sign-in": 303,
    "/readyz": 503,
}
"""Routes that answer with something else than 200: `/readyz`, as a database that only reads is not ready."""


def rules() -> list[str]:
    """Return every GET route of the application, so that a new one is asked as well."""
    app = create_app(Settings())
    services: Services = app.extensions[EXTENSION]
    services.close()
    return sorted({rule.rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())})


@pytest.fixture(scope="module")
def app(standing_app: Flask) -> Flask:
    return standing_app


@pytest.fixture(scope="module")
def farm(app: Flask) -> Farm:
    services: Services = app.extensions[EXTENSION]
    hand = Farmhand(services.sessions)
    worker = hand.worker()

    def job(**params: object) -> int:
        complete = PLAIN.model_copy(update=params)
        return hand.run(submit, admission("local", complete)).job.id

    def rendered(job_id: int) -> None:
        claim = worker.claim()
        assert claim.job_id == job_id
        for kind in get_args(Kind):
            data = json.dumps(KEPT).encode() if kind == "intermediates" else b"bytes"
            services.storage.put(key(job_id, claim.index, claim.attempt, kind), data)
        hand.run(transitions.finish, claim, 5)

    def change(statement: str, **values: object) -> None:
        hand.run(lambda session: session.execute(text(statement), values))

    services.storage.put(upload_key(SHA256), b"bytes")
    change("INSERT INTO uploads (owner, sha256, width, height, bytes) VALUES ('local', :id, 8, 8, 5)", id=SHA256)
    ended = job(film=True, intermediates=True, img2img=Img2Img(picture=SHA256))
    rendered(ended)
    strange = job()
    rendered(strange)
    running = job(count=4, hires=Hires())
    claim = worker.claim()
    services.events.put_preview(running, 0, b"bytes")
    services.events.publish(Progress(running, 0, claim.attempt, 1, 20, "steps"))
    services.events.flush()
    redis = services.events._redis
    redis.hset(f"farm:job:{running}:progress", "0", json.dumps({"kind": "progress", "job": running, "mood": 1}))
    redis.xadd(f"farm:job:{ended}:events", {"event": json.dumps({"kind": "mood", "job": ended})})

    newer = "UPDATE jobs SET params = params || CAST(:new AS jsonb) WHERE id = :id"
    change(newer, id=ended, new=json.dumps({"mood": "blue", "hires": {"foo": 1}, "video": {"frames": 24}}))
    change(newer, id=running, new=json.dumps(TOMORROW))
    change(newer, id=strange, new=json.dumps({"format": "avif", "styles": 7}))
    change("UPDATE images SET state = 'paused' WHERE job_id = :id AND index = 1", id=running)
    change("UPDATE images SET state = 'archived' WHERE job_id = :id", id=strange)
    change("UPDATE jobs SET state = 'archived' WHERE id = :id", id=strange)
    change(
        "UPDATE workers SET state = 'upgrading', phase = 'dreaming', pool = 'default,dreams', resident = :resident, "
        "models = :models",
        models=json.dumps([7, {"kind": "dream"}, {"kind": "dream", "sha256": SHA256, "bytes": 9, "mood": "blue"}]),
        resident=json.dumps([{"sha256": SHA256, "role": "unet"}, SHA256]),
    )
    for kind, worker_name in (("dreamt", "host/cpu:1"), ("buried", "host/cpu:1"), ("buried", None)):
        change("INSERT INTO history (event, worker, job_id) VALUES (:e, :w, :j)", e=kind, w=worker_name, j=running)
    change("INSERT INTO chores (name, done_at) VALUES ('dream', now())")
    change("INSERT INTO drains (worker, reason) VALUES ('host/tpu:0', '')")
    catalogue = checkpoints_of(services.sessions)
    for kind in ("checkpoint", "vae", "decoder", "dream"):
        catalogue(f"{kind} of tomorrow", kind=kind, architecture="sd9", native_size=None)
    return Farm(ended, running, strange)


@pytest.fixture
def read_only(app: Flask, farm: Farm) -> Iterator[None]:
    """Whatever would write to the database raises an error, once what stands in it is written."""
    engine = app.extensions[EXTENSION].engine

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")

    event.listen(engine, "begin", begin)
    yield
    event.remove(engine, "begin", begin)


@pytest.mark.usefixtures("read_only")
def test_what_is_looked_at_before_it_is_submitted_writes_nothing(app, farm):
    """The check of a form, the tokens of a prompt, what a picture's file says."""
    services, client = app.extensions[EXTENSION], app.test_client()
    given = {"prompt": "sea", "checkpoint": "demo", "img2img": {"picture": SHA256}, "hold_behind": farm.running}
    assert jobs.problems(services, LOCAL, given) == ()
    with pytest.raises(Unavailable, match="takes no changes"):
        jobs.submit(services, LOCAL, given)
    assert client.post("/api/v1/tokens", json={"prompt": "sea"}).status_code == 200
    assert client.post("/api/v1/png-info", data=PICTURE_FILE.read_bytes()).status_code == 200


def address(rule: str, job_id: int, app: Flask) -> str:
    """Return an address of this route. A new kind of argument is to be added here."""
    arguments = {
        "job_id": job_id,
        "webhook_id": 1,
        "delivery_id": 1,
        "token": "none",
        "index": 0,
        "extension": "png",
        "upload_id": SHA256,
        "sha256": SHA256,
    }
    arguments |= {
        "owner": "anyone",
        "model": "demo",
        "version": "0",
        "name": "live.js",
        "filename": "live.js",
        "part": "noise",
        "way": "fill",
    }
    [known, *_] = [one for one in app.url_map.iter_rules() if one.rule == rule and "GET" in (one.methods or ())]
    adapter = app.url_map.bind("localhost")
    return adapter.build(known.endpoint, {name: arguments[name] for name in known.arguments})


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("rule", rules())
def test_every_page_and_route_answers_for_jobs_of_a_newer_version_and_writes_nothing(app, farm, rule):
    client = app.test_client()
    job_id = farm.running if "preview" in rule else farm.ended
    with client.get(address(rule, job_id, app) + QUERIES.get(rule, "")) as answer:
        assert answer.status_code == OTHERWISE.get(rule, 200)
    for other in {farm.running, farm.strange} if "job_id" in rule and not rule.endswith("events") else ():
        assert client.get(address(rule, other, app)).status_code in {200, 404, 409}


@pytest.mark.parametrize("query", ["", "&image=0", "&image=0&to=hires", f"&image=0&to=img2img&source={SHA256}"])
def test_the_form_takes_over_what_it_understands_and_says_what_not(app, farm, query):
    page = app.test_client().get(f"/?from={farm.ended}{query}").get_data(as_text=True)
    assert "hires.foo: 1" in page
    assert "mood: blue" in page
    assert "only a newer version of the farm understands" in page


def test_a_job_says_what_is_not_understood(app, farm):
    client = app.test_client()
    body = client.get(f"/api/v1/jobs/{farm.ended}").get_json()
    assert body["not_understood"] == {"mood": "blue", "hires.foo": 1, "video": {"frames": 24}}
    assert body["params"]["prompt"] == "the sea"
    page = client.get(f"/jobs/{farm.ended}").get_data(as_text=True)
    assert "Written by a newer version of the farm" in page
    assert "<dt>hires.foo</dt><dd>1</dd>" in page
    running = client.get(f"/jobs/{farm.running}").get_data(as_text=True)
    assert "<dt>sampler</dt><dd>Euler 5</dd>" in running
    assert "<dd>Euler a</dd>" not in running, "a default is not what was asked for"


def test_states_of_a_newer_version_are_shown_as_such(app, farm):
    client = app.test_client()
    running = client.get(f"/api/v1/jobs/{farm.running}").get_json()
    assert running["images"][1]["state"] == "unknown"
    assert running["images"][1]["reason"] == "a newer version of the farm says that it is paused"
    assert running["counts"]["unknown"] == 1
    strange = client.get(f"/api/v1/jobs/{farm.strange}").get_json()
    assert strange["state"] == strange["images"][0]["state"] == "unknown"
    [worker] = client.get("/api/v1/workers").get_json()["workers"]
    assert (worker["state"], worker["resident"]) == ("unknown", [SHA256])
    assert [(one["kind"], one["bytes"]) for one in worker["models"]] == [("dream", 9)]


def test_farm_status_tells_of_them(app, farm, capsys):
    client = app.test_client()
    for job_id in (farm.ended, farm.running, farm.strange):
        cli_jobs._job(client.get(f"/api/v1/jobs/{job_id}").get_json())
    whole = {"url": "here", "chores": client.get("/api/v1/chores").get_json()}
    for part in ("workers", "jobs"):
        whole |= client.get(f"/api/v1/{part}").get_json()
    cli_jobs._farm(whole)
    said = capsys.readouterr().out
    assert "written by a newer version: hires.foo" in said
    assert "unknown" in said


def test_pictures_in_a_strange_format_are_told_of(app, farm):
    client, services = app.test_client(), app.extensions[EXTENSION]
    finished = text("UPDATE images SET state = 'succeeded' WHERE job_id = :id")
    transact(services.sessions, lambda session: session.execute(finished, {"id": farm.strange}))
    [image] = client.get(f"/api/v1/jobs/{farm.strange}").get_json()["images"]
    assert image["links"]["picture"] is None
    assert client.get(image["links"]["thumbnail"]).status_code == 200
    assert 'href="None"' not in client.get(f"/jobs/{farm.strange}").get_data(as_text=True)
    for path, status in (("images/0/picture.png", 404), ("zip", 409)):
        answer = client.get(f"/api/v1/jobs/{farm.strange}/{path}")
        assert (answer.status_code, "avif" in answer.get_json()["detail"]) == (status, True)
