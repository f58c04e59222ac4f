"""The pages as a person without scripts uses them: real application, real PostgreSQL and Redis."""

from __future__ import annotations

import pytest

from api.pages import assets
from shared.messaging.events import Progress
from shared.queue import transitions
from tests.conftest import CheckpointFactory
from tests.support.browsing import look, page, send
from tests.support.queueing import Farmhand

HOSTILE = """</textarea><script>alert(1)</script>" onmouseover="alert(2)' x='&amp;<img src=x onerror=alert(3)>"""
FIELDS = {"prompt": "a photo of the sea at night", "steps": "4", "cfg_scale": "6,5", "seed": "7", "count": "2"}


@pytest.fixture(autouse=True)
def _checkpoint(checkpoint_factory: CheckpointFactory) -> None:
    checkpoint_factory("demo", native_size=64)


def submitted(client, **fields: str) -> str:
    """Submit the form and return the address of the job's page."""
    answer = send(client, "/jobs", **(FIELDS | fields))
    assert answer.status_code == 303
    return answer.location


def test_form_has_sane_defaults(client):
    form = look(client, "/")
    assert [form.value(name) for name in ("steps", "cfg_scale", "seed", "count", "width")] == ["20", "7", "-1", "1", ""]
    assert form.all("input", name="width")[0].attributes["placeholder"] == "64"
    assert {"Euler a", "automatic"} <= {one.attributes["value"] for one in form.all("option", selected=None)}
    assert not form.all("details", open=None), "nothing is set, so that every group is folded"


def test_form_lists_unusable_checkpoints_with_the_reason(client, checkpoint_factory):
    checkpoint_factory("broken", usable=False, reason="The file ends in the middle of a tensor.")
    form = look(client, "/")
    assert "1 file in the models folder cannot be used" in form.text
    assert "The file ends in the middle of a tensor." in form.text
    assert all(option.attributes.get("value") != "broken" for option in form.all("option"))


def test_submitted_form_leads_to_the_jobs_page(client):
    job = look(client, submitted(client))
    assert "a photo of the sea at night" in job.text
    assert "0 of 2 done, next in line" in job.text
    assert "CFG scale 6.5" in job.text
    assert job.all("meta", **{"http-equiv": "refresh"}), "without scripts the page must come again by itself"


def test_form_without_its_token_is_refused_and_records_nothing(client):
    answer = client.post("/jobs", data=FIELDS)
    assert answer.status_code == 403
    assert "Not allowed from here" in page(answer).text
    assert "No jobs yet" in look(client, "/jobs").text


def test_errors_stand_beside_their_fields_and_the_input_is_kept(client):
    wrong = {"width": "130", "steps": "many", "cfg_scale": "nan", "sampler": "Euler b", "seed": "9" * 40, "count": "0"}
    answer = send(client, "/jobs", prompt=HOSTILE, **wrong)
    assert answer.status_code == 422
    form = page(answer)
    shown = {one.attributes["id"] for one in form.all("p", **{"class": "error"})}
    assert shown == {f"{name}-error" for name in wrong}
    assert [form.value(name) for name in wrong if name != "sampler"] == ["130", "many", "nan", "9" * 40, "0"]
    assert "Euler a" in form.text
    assert HOSTILE in form.markup.replace("&lt;", "<").replace("&gt;", ">").replace("&#34;", '"').replace(
        "&#39;", "'"
    ).replace("&amp;", "&")
    assert "No jobs yet" in look(client, "/jobs").text


def test_schedule_that_the_sampler_does_not_take_is_refused_beside_the_field(client):
    answer = send(client, "/jobs", sampler="DDIM", schedule="karras", **FIELDS)
    assert answer.status_code == 422
    assert page(answer).all("p", id="schedule-error")


def test_again_fills_the_form_with_the_jobs_parameters(client):
    job = submitted(client, sampler="DPM++ 2M", schedule="karras", width="128", height="64", exact="on")
    form = look(client, f"/?from={job.rpartition('/')[2]}")
    assert [form.value(name) for name in ("width", "height", "steps", "cfg_scale", "seed", "count")] == [
        "128", "64", "4", "6.5", "7", "2"
    ]  # fmt: skip
    assert "checked" in form.all("input", name="exact")[0].attributes
    assert {"DPM++ 2M", "karras"} <= {one.attributes["value"] for one in form.all("option", selected=None)}


def test_again_from_a_job_that_is_not_there_is_a_page(client):
    assert "There is no job 4711." in look(client, "/?from=4711", 404).text


@pytest.mark.parametrize(
    "path", ["/", "/?from={job}", "/jobs", "/jobs/{job}", "/jobs/{job}/delete", "/models", "/workers"]
)
def test_no_page_lets_a_prompt_become_markup(client, path):
    job = submitted(client, prompt=HOSTILE, negative_prompt=HOSTILE).rpartition("/")[2]
    shown = look(client, path.format(job=job))
    assert all(one.attributes.get("src", "").startswith("/static/") for one in shown.all("script"))
    assert not [
        one for one in shown.elements if any(name.startswith("on") or name == "style" for name in one.attributes)
    ]
    assert not shown.all("style")
    ids = [one.attributes["id"] for one in shown.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    assert {one.attributes["for"] for one in shown.all("label")} <= set(ids)


def test_cancel_retry_and_delete_without_scripts(client):
    job = submitted(client)
    assert send(client, f"{job}/images/1/cancel").location == f"{job}?image=1#image-1"
    shown = look(client, job)
    assert "1 image cancelled" in shown.text
    assert shown.all("article", id="image-1")
    send(client, f"{job}/cancel")
    send(client, f"{job}/cancel")
    assert "cancelled" in look(client, job).text
    send(client, f"{job}/images/0/retry")
    assert "1 image back in the queue" in look(client, job).text
    send(client, f"{job}/cancel", back="/jobs?state=queued")
    assert "This cannot be undone." in look(client, f"{job}/delete").text
    assert send(client, f"{job}/delete").location == "/jobs"
    assert "is deleted" in look(client, "/jobs").text
    look(client, job, 404)


def test_running_job_is_not_deleted(client, sessions):
    job = submitted(client)
    Farmhand(sessions).worker().claim()
    assert send(client, f"{job}/delete").location == job
    assert "running" in look(client, job).text


def test_finished_image_is_shown_with_its_picture_and_a_failed_one_with_the_reason(client, sessions):
    job = submitted(client)
    hand = Farmhand(sessions)
    worker = hand.worker()
    hand.run(transitions.finish, worker.claim(), 2048)
    hand.run(transitions.fail, worker.claim(), "The disk is <full>.")
    shown = look(client, job)
    assert "The disk is <full>." in shown.text
    assert "2.0 KB" in shown.text
    shows = [image.attributes.get("src") for image in shown.all("img")]
    assert [source for source in shows if source] == [f"/api/v1{job}/images/0/picture.png"]  # one waits to be enlarged
    assert not shown.all("meta", **{"http-equiv": "refresh"})


def test_image_whose_steps_are_done_is_decoded(client, services, sessions):
    job = submitted(client)
    claim = Farmhand(sessions).worker().claim()
    for step, words in ((3, "step 3 of 4"), (4, "decoding")):
        services.events.publish(Progress(claim.job_id, claim.index, claim.attempt, step, 4, "steps"))
        assert services.events.flush()
        assert words in look(client, job).text


def test_large_job_is_shown_page_by_page(client):
    job = submitted(client, count="130")
    assert len(look(client, job).all("article")) == 60
    last = look(client, f"{job}?page=99")
    assert len(last.all("article")) == 10
    assert last.all("a", rel="prev")
    assert not last.all("a", rel="next")


def test_list_goes_page_by_page_and_by_state(client):
    addresses = [submitted(client) for _ in range(21)]
    send(client, f"{addresses[0]}/cancel")
    first = look(client, "/jobs")
    assert len(first.all("article")) == 20
    (older,) = first.all("a", rel="next")
    assert len(look(client, older.attributes["href"]).all("article")) == 1
    assert len(look(client, "/jobs?state=cancelled").all("article")) == 1
    assert "No job is failed now." in look(client, "/jobs?state=failed").text


def test_missing_page_looks_like_the_others(client):
    missing = look(client, "/nowhere", 404)
    assert "There is nothing here" in missing.text
    assert missing.all("a", href="/jobs")


def test_static_files_are_kept_for_good_under_their_version_only(client):
    fresh = client.get(assets.address("base.css"))
    assert fresh.mimetype == "text/css"
    assert fresh.cache_control.immutable
    assert fresh.cache_control.max_age > 10**7
    fresh.close()
    stale = client.get("/static/0123456789/base.css")
    assert not stale.cache_control.immutable
    assert not stale.cache_control.max_age
    stale.close()
    assert client.get("/static/0123456789/../app.py").status_code == 404


@pytest.mark.parametrize(
    "query", ["/?from=", "/?from=x", f"/?from={10**30}", "/jobs?cursor=-1", f"/jobs?cursor={10**30}", "/jobs?state=odd"]
)
def test_number_that_makes_no_sense_counts_as_not_given(client, query):
    look(client, query)


def test_message_waits_for_the_person_while_the_page_looks_again(client):
    job = submitted(client)
    send(client, f"{job}/cancel")
    assert "2 images cancelled" not in page(client.get(job, headers={"X-Live": "1"})).text
    assert "2 images cancelled" in look(client, job).text


def test_browser_asks_before_it_shows_a_page_again(client):
    assert client.get("/jobs").headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("prompt", ["x" * 100_000, "half \x00 of it"], ids=["long", "nul"])
def test_prompt_that_cannot_be_kept_is_told_beside_the_field(client, prompt):
    answer = send(client, "/jobs", prompt=prompt)
    assert answer.status_code == 422
    assert page(answer).all("p", id="prompt-error")


def test_form_that_is_too_large_is_answered_with_a_page(client):
    answer = client.post("/jobs/1/cancel", data={"back": "x" * 3 * 2**20})
    assert answer.status_code == 413
    assert "Too large" in page(answer).text
