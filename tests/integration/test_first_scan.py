"""Before a worker has looked at the models folder: nobody is refused, and nothing is said that is not so."""

from __future__ import annotations

import pytest

from shared.db.sessions import transact
from shared.models import first_scan
from tests.conftest import CheckpointFactory
from tests.support.browsing import Page, look, page, send
from tests.support.queueing import Farmhand


@pytest.fixture
def note(sessions):
    return lambda what: transact(sessions, what)


def chosen(form) -> str:
    select = form.markup.partition('id="checkpoint"')[2].partition(">")[2].partition("</select>")[0]
    return Page(select).text


def test_form_says_that_workers_are_coming_and_the_folder_is_looked_at(client, note, sessions):
    note(first_scan.record_start)
    form = look(client, "/")
    assert chosen(form) == "Scanning the models folder…"
    assert "The workers are starting · nothing waits. Jobs can be submitted" in form.text
    assert "No worker is alive" not in form.text
    assert "empty: the checkpoint’s own" in form.text
    assert "512" not in form.text  # nobody knows yet which size that is
    Farmhand(sessions).worker()
    assert chosen(look(client, "/")) == "Scanning the models folder…"


def test_empty_folder_is_told_with_its_place_once_somebody_has_looked(client, note, settings, sessions):
    assert chosen(look(client, "/")) == "No worker has scanned the models folder yet."
    Farmhand(sessions).worker()
    note(first_scan.record_scan)
    assert chosen(look(client, "/")) == f"No checkpoint found. Put one into {settings.models}."
    answer = send(client, "/jobs", prompt="a")
    assert answer.status_code == 422
    assert "none lies in the models folder" in page(answer).text


def test_files_that_cannot_be_used_are_told_as_that(client, note, checkpoint_factory: CheckpointFactory, sessions):
    checkpoint_factory("broken", usable=False, reason="unet.weight is missing", sha256=None)
    Farmhand(sessions).worker()
    note(first_scan.record_scan)
    assert chosen(look(client, "/")).startswith("No checkpoint can be used: the reasons are below.")


def test_job_that_comes_early_is_put_off_and_the_form_keeps_what_was_typed(client, note):
    note(first_scan.record_start)
    answer = send(client, "/jobs", prompt="a red boat", steps="33")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    form = page(answer)
    assert form.value("steps") == "33"
    assert "a red boat" in form.text
    assert "The farm is still scanning the models folder. The form keeps your settings." in form.text
    assert "Press Render again in a few seconds." in form.text
    assert not form.all("div", role="alert")


def test_program_that_comes_early_is_told_when_to_come_again(client, note, checkpoint_factory: CheckpointFactory):
    note(first_scan.record_start)
    answer = client.post("/api/v1/jobs", json={"prompt": "a"}, headers={"Idempotency-Key": "one"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.get_json()["detail"] == "The farm is still reading its models. Try again in a few seconds."
    assert client.get("/api/v1/checkpoints").get_json() == {
        "checkpoints": [],
        "next": None,
        "total": 0,
        "counts": {"architecture": {}, "prediction": {}},
        "is_complete": False,
    }
    checkpoint_factory("demo")
    note(first_scan.record_scan)
    assert client.post("/api/v1/jobs", json={"prompt": "a"}, headers={"Idempotency-Key": "one"}).status_code == 202
    assert client.get("/api/v1/checkpoints").get_json()["is_complete"]


def test_parameters_of_a_file_are_read_before_anybody_has_looked(client, note):
    note(first_scan.record_start)
    filled = page(send(client, "/from-picture", file=_picture()))
    assert filled.value("steps") == "12"


def _picture():
    from tests.integration.test_pages_form import file  # noqa: PLC0415 - its fixtures are not this module's

    return file(text="a castle\nSteps: 12, Sampler: Euler, Seed: 42, Size: 64x64")


def test_workers_that_were_started_long_ago_and_never_came_are_not_waited_for(client, note, sessions):
    note(first_scan.record_start)
    with sessions.begin() as session:
        session.connection().exec_driver_sql("UPDATE chores SET done_at = now() - interval '121 seconds'")
    assert "No worker is alive" in look(client, "/").text
    assert client.post("/api/v1/jobs", json={"prompt": "a"}).status_code == 422


def test_job_without_a_checkpoint_waits_for_the_farms_first_one(client, note, checkpoint_factory: CheckpointFactory):
    note(first_scan.record_start)
    checkpoint_factory("another")  # found by the look that goes on
    form = look(client, "/")
    assert chosen(form).startswith("Scanning the models folder… another")
    assert client.post("/api/v1/jobs", json={"prompt": "a"}).status_code == 503
    assert client.post("/api/v1/jobs", json={"prompt": "a", "checkpoint": "another"}).status_code == 202
    checkpoint_factory("scenes-v1")
    assert chosen(look(client, "/")).startswith("scenes-v1")
    job = client.post("/api/v1/jobs", json={"prompt": "a"}).get_json()
    assert job["params"]["checkpoint"].startswith("scenes-v1")


def test_farm_that_begins_once_more_goes_by_what_it_knew(client, note, checkpoint_factory: CheckpointFactory):
    checkpoint_factory("another")
    note(first_scan.record_start)
    assert client.post("/api/v1/jobs", json={"prompt": "a"}).status_code == 202
    assert chosen(look(client, "/")).startswith("another")
