"""How a picture was made, from what its worker stored to the API and the page."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from shared.db.sessions import transact
from shared.media.storage import key
from shared.params.render import RenderParams
from shared.queue import transitions
from shared.queue.submit import submit
from tests.support.admissions import sweep
from tests.support.browsing import look
from tests.support.queueing import Farmhand

KEPT = {
    "start": [16, 8],
    "steps": [{"step": 1, "steps": 20, "sigma": 14.6, "second_pass": False}],
    "guidance": {"step": 7, "sigma": 4.5, "gain": 2.5},
    "prompt": [{"weight": 1.0, "chunks": [[{"id": 320, "text": "<b>", "weight": 1.3}]]}],
    "negative_prompt": [{"weight": 1.0, "chunks": [[]]}],
    "of a newer version": 1,
}


def ended(services, sessions, job_factory, kept=KEPT, **params):
    """A job of one picture, and where the API has it."""
    job = job_factory(intermediates=True, **params)
    end(services, sessions, kept)
    return job


def end(services, sessions, kept=KEPT):
    claim = Farmhand(sessions).worker().claim()
    place = (claim.job_id, claim.index, claim.attempt)
    for kind in ("picture", "thumbnail", "noise", "latents", "guidance"):
        services.storage.put(key(*place, kind), kind.encode())
    services.storage.put(key(*place, "intermediates"), json.dumps(kept).encode())
    transact(sessions, lambda session: transitions.finish(session, claim, 9))


def test_links_lead_to_all_of_it(client, services, sessions, job_factory):
    job = ended(services, sessions, job_factory)
    [image] = client.get(f"/api/v1/jobs/{job.id}").get_json()["images"]
    made = client.get(image["links"]["intermediates"]).get_json()
    assert {name: made[name] for name in KEPT if name in made} == {
        name: value for name, value in KEPT.items() if name != "of a newer version"
    }
    for kind in ("noise", "latents", "guidance", "picture"):
        assert client.get(made["links"][kind]).data == kind.encode()


def test_page_shows_five_steps_and_escapes_what_a_prompt_says(client, services, sessions, job_factory):
    job = ended(services, sessions, job_factory)
    assert f"/jobs/{job.id}/images/0/made" in client.get(f"/jobs/{job.id}").text
    page = look(client, f"/jobs/{job.id}/images/0/made")
    places = [page.text.index(title) for title in ("Noise", "Tokens", "Steps of", "What the prompt", "The decoder")]
    assert places == sorted(places)
    assert "&lt;b&gt;" in client.get(f"/jobs/{job.id}/images/0/made").text
    assert "16 × 8 cells" in page.text


def test_a_late_picture_of_a_large_sweep_has_its_page(client, services, sessions):
    params = RenderParams(checkpoint="demo [cccccccccc]", width=64, height=64, intermediates=True)
    job = transact(sessions, lambda session: submit(session, sweep("local", params, {"steps": [*range(1, 102)]})).job)
    held = text("UPDATE images SET state = 'held' WHERE job_id = :job AND index < 100")
    transact(sessions, lambda session: session.execute(held, {"job": job.id}))
    end(services, sessions)
    assert "16 × 8 cells" in look(client, f"/jobs/{job.id}/images/100/made").text


def test_without_guidance_and_steps_the_page_says_so(client, services, sessions, job_factory):
    job = ended(services, sessions, job_factory, {**KEPT, "guidance": None, "steps": []})
    page = look(client, f"/jobs/{job.id}/images/0/made")
    assert "without guidance" in page.text
    assert "one step only" in page.text


@pytest.mark.parametrize("path", ["intermediates.json", "noise.webp", "latents.webp", "guidance.webp"])
def test_a_job_that_did_not_ask_for_it_has_none(client, services, sessions, job_factory, path):
    job = job_factory()
    claim = Farmhand(sessions).worker().claim()
    transact(sessions, lambda session: transitions.finish(session, claim, 9))
    answer = client.get(f"/api/v1/jobs/{job.id}/images/0/{path}")
    assert answer.status_code == 404
    assert "without keeping how" in answer.get_json()["detail"]
    assert client.get(f"/jobs/{job.id}/images/0/made").status_code == 404


def test_deleting_a_job_deletes_it_too(client, services, sessions, job_factory):
    job = ended(services, sessions, job_factory)
    name = key(job.id, 0, 1, "intermediates")
    assert services.storage.exists(name)
    assert client.delete(f"/api/v1/jobs/{job.id}").status_code in {200, 204}
    assert not services.storage.exists(name)
