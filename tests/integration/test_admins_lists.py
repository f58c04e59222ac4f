"""An admin lists what others have, if they say whose; nobody else does."""

from __future__ import annotations

import pytest

from api.services import EXTENSION
from shared.accounts.principal import Role
from shared.queue import transitions
from tests.support.keys import headers_of
from tests.support.queueing import Farmhand


@pytest.fixture(scope="module")
def app(standing_app):
    return standing_app


@pytest.fixture(scope="module")
def sent(app):
    """The headers of each owner's key; ann and bob each have a job with a picture."""
    sessions = app.extensions[EXTENSION].sessions
    made = headers_of(sessions, {"root": Role.ADMIN, "oz": Role.OPERATOR, "ann": Role.USER, "bob": Role.USER})
    client = app.test_client(use_cookies=False)
    for owner in ("ann", "bob"):
        client.post("/api/v1/jobs", json={"prompt": f"sea of {owner}", "steps": 2}, headers=made[owner])
    hand = Farmhand(sessions)
    worker = hand.worker()
    while ours := worker.claim():
        hand.run(transitions.finish, ours, 9)
    return made


@pytest.fixture
def ask(client, sent):
    return lambda path, who: client.get(path, headers=sent[who])


def owners(answer, of="jobs"):
    return [one["owner"] for one in answer.get_json()[of]]


def prompts(answer):
    return [one["params"]["prompt"] for one in answer.get_json()["pictures"]]


def test_jobs_are_ones_own_unless_an_admin_names_others(ask):
    jobs = "/api/v1/jobs"
    assert owners(ask(jobs, "ann")) == owners(ask(f"{jobs}?owner=ann", "ann")) == ["ann"]
    assert owners(ask(jobs, "root")) == []
    assert owners(ask(f"{jobs}?owner=ann", "root")) == ["ann"]
    assert sorted(owners(ask(f"{jobs}?owner=*&state=succeeded", "root"))) == ["ann", "bob"]


def test_pictures_are_ones_own_unless_an_admin_names_others(ask):
    pictures = "/api/v1/pictures"
    assert prompts(ask(f"{pictures}?owner=bob&words=sea", "root")) == ["sea of bob"]
    assert prompts(ask(pictures, "root")) == []
    assert ask(f"{pictures}/facets?owner=bob", "root").get_json()["samplers"]
    assert ask(f"{pictures}/facets?owner=*", "root").get_json()["samplers"]
    assert sorted(owners(ask(f"{pictures}?owner=*", "root"), "pictures")) == ["ann", "bob"]
    assert sorted(prompts(ask(f"{pictures}?owner=*&words=sea", "root"))) == ["sea of ann", "sea of bob"]


@pytest.mark.parametrize("others", ["bob", "*"])
@pytest.mark.parametrize("who", ["ann", "oz"])
@pytest.mark.parametrize(
    "path", ["/api/v1/jobs", "/api/v1/pictures", "/api/v1/pictures/facets", "/api/v1/usage", "/jobs", "/pictures"]
)
def test_nobody_else_names_others(ask, who, path, others):
    answer = ask(f"{path}?owner={others}", who)
    assert answer.status_code == 403
    assert "sea of bob" not in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/jobs?owner=%00", 422),
        ("/api/v1/pictures?owner=%00", 422),
        ("/api/v1/pictures/facets?owner=%00", 422),
        ("/api/v1/pictures?words=%00", 200),
        ("/api/v1/usage?owner=%00", 422),
        ("/api/v1/usage.csv?owner=%00", 422),
        ("/api/v1/audit?owner=%00", 422),
        ("/api/v1/presets/a%00b", 404),
        ("/api/v1/models?search=%00", 200),
        ("/api/v1/models?kind=%00", 422),
        ("/jobs?owner=%00", 200),
        ("/pictures?owner=%00", 200),
        ("/usage?owner=%00", 200),
        ("/audit?owner=%00", 200),
        ("/limits?owner=%00", 200),
    ],
)
def test_a_name_that_cannot_be_stored_is_an_answer(ask, path, status):
    assert ask(path, "root").status_code == status


def test_what_an_admin_does_with_all_of_a_filter_concerns_the_owner_that_it_names(client, sent):
    asked = {"action": "favourite", "filter": {"owner": "bob"}}
    actions = "/api/v1/pictures/actions"
    assert client.post(actions, json=asked, headers=sent["root"]).get_json()["pictures"] == 1
    assert client.post(actions, json=asked, headers=sent["ann"]).status_code == 403
    everybodys = client.post(actions, json={"action": "delete", "filter": {"owner": "*"}}, headers=sent["root"])
    assert (everybodys.status_code, everybodys.get_json()["errors"][0]["field"]) == (422, "owner")
    own = {"action": "favourite", "filter": {}}
    assert client.post(actions, json=own, headers=sent["root"]).get_json()["pictures"] == 0


def test_pages_of_an_admin_keep_to_the_owner_that_they_show(ask):
    jobs = ask("/jobs?owner=bob", "root").text
    assert "sea of bob" in jobs
    assert "sea of ann" not in jobs
    assert 'href="/jobs?owner=bob&amp;state=held"' in jobs
    pictures = ask("/pictures?owner=bob", "root").text
    assert '<input type="hidden" name="owner" value="bob">' in pictures
    assert 'name="owner"' not in ask("/pictures", "bob").text
    everybodys = ask("/pictures?owner=*", "root").text
    assert all(f'title="{owner}">{owner}</span>' in everybodys for owner in ("ann", "bob"))
    assert 'name="all"' not in everybodys, "what is done with all of a filter is done to one owner"
