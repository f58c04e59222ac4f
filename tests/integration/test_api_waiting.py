"""Why a job waits: in the API, on pages and on the command line."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from cli import jobs as commands
from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.db.tables import ModelFile
from shared.models.catalogue import GONE
from shared.queue import transitions
from tests.conftest import CheckpointFactory
from tests.support.browsing import look, send
from tests.support.queueing import Farmhand


@pytest.fixture(autouse=True)
def _checkpoint(checkpoint_factory: CheckpointFactory) -> None:
    checkpoint_factory("demo", native_size=64)


@pytest.fixture
def submitted(client):
    return lambda **params: client.post("/api/v1/jobs", json={"prompt": "sea"} | params).get_json()


def test_job_says_why_it_waits(client, submitted):
    job = submitted(count=2)
    told = client.get(job["links"]["self"]).get_json()["waiting"]
    assert told == {
        "index": 0,
        "code": "no_worker",
        "text": "No worker is alive.",
        "position": 0,
        "estimate_seconds": None,
        "estimate_error": None,
        "missing": [],
    }


def test_job_names_a_missing_adapter_and_its_folder_in_the_api_and_on_its_page(
    client, submitted, checkpoint_factory, sessions
):
    ink = checkpoint_factory("ink", kind="lora", details={"form": "rows"})
    job = submitted(prompt="sea <lora:ink:0.8>")
    Farmhand(sessions).worker().heartbeat()
    gone = update(ModelFile).where(ModelFile.path == ink.path).values(usable=False, reason=GONE)
    transact(sessions, lambda session: session.execute(gone))
    waiting = client.get(job["links"]["self"]).get_json()["waiting"]
    text = (
        "Its LoRA cannot be loaded: ink is on no machine any more. "
        "Put the file that it was submitted with into the folder Lora of the models folder (FARM_MODELS)."
    )
    assert (waiting["code"], waiting["text"]) == ("no_model", text)
    assert waiting["missing"] == [
        {"kind": "lora", "name": "ink", "folder": "Lora", "sha256": ink.sha256, "text": text},
    ]
    page = look(client, job["links"]["page"]).text
    assert text in page
    assert "next in line" not in page, "no worker can take it"


def test_job_that_has_ended_waits_for_nothing(client, submitted):
    job = submitted()
    client.post(job["links"]["cancel"])
    assert client.get(job["links"]["self"]).get_json()["waiting"] is None


def test_job_that_was_waited_for_says_why_it_still_waits(client):
    answer = client.post("/api/v1/jobs", json={"prompt": "sea"}, headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    assert answer.get_json()["waiting"]["code"] == "no_worker"


def test_list_of_jobs_does_not_ask(client, submitted):
    submitted()
    assert [job["waiting"] for job in client.get("/api/v1/jobs").get_json()["jobs"]] == [None]


def test_job_in_company(client, submitted, sessions):
    hand = Farmhand(sessions)
    worker = hand.worker(slots=1)
    worker.heartbeat()
    first, second = submitted(), submitted()
    worker.claim()
    told = client.get(second["links"]["self"]).get_json()
    assert told["waiting"]["code"] == "slot"
    assert worker.name in told["waiting"]["text"]
    transact(sessions, lambda session: transitions.cancel(session, EVERYBODYS, first["id"]))


def test_page_says_why_it_waits(client):
    page = look(client, send(client, "/jobs", prompt="sea").location)
    assert "No worker is alive." in page.text
    assert page.all("p", **{"data-code": "no_worker"})


def test_command_line_says_why_it_waits(client, submitted, capsys):
    job = submitted()

    class Asked:
        def job(self, job_id: int) -> dict:
            return client.get(f"/api/v1/jobs/{job_id}").get_json()

    commands.status(Asked(), job["id"], as_json=False)
    assert "No worker is alive." in capsys.readouterr().out
