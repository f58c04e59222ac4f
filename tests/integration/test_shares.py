"""Share links: anybody sees what they lead to and nothing else, until they end or are revoked."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from api.app import create_app
from api.services import EXTENSION
from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.db.tables import Share
from shared.jobs import shares
from shared.media.storage import key
from shared.queue import transitions
from tests.support.browsing import look
from tests.support.galleries import fill
from tests.support.queueing import Farmhand

ANN, BOB = {"Authorization": "Bearer anns-key-1"}, {"Authorization": "Bearer bobs-key-1"}
URL = "/api/v1/shares"


@pytest.fixture
def app(settings):
    made = create_app(settings.model_copy(update={"api_keys": {"anns-key-1": "ann", "bobs-key-1": "bob"}}))
    yield made
    made.extensions[EXTENSION].close()


@pytest.fixture
def job(services, sessions, job_factory):
    """A job of ann's with two finished pictures."""
    made, worker = job_factory(owner="ann", count=2, prompt="the sea"), Farmhand(sessions).worker()
    for _ in range(2):
        claim = worker.claim()
        for kind in ("picture", "thumbnail"):
            services.storage.put(key(made.id, claim.index, claim.attempt, kind), f"{kind} {claim.index}".encode())
        transact(sessions, partial(transitions.finish, claim=claim, picture_bytes=9))
    return made


@pytest.fixture
def share(client, job):
    """Makes a link of ann's; returns its answer with the path of its page."""

    def make(**given):
        made = client.post(URL, json={"job": job.id} | given, headers=ANN).get_json()
        return made | {"path": made["link"].removeprefix("http://localhost")}

    return make


def links(client, path):
    """Return the links that a page shows."""
    return [one.attributes["href"] for one in look(client, path).all("a") if "/s/" in one.attributes["href"]]


def run(sessions, statement):
    transact(sessions, lambda session: session.execute(text(statement)))


def test_link_to_a_job_shows_its_pictures_to_anybody(client, share):
    here = share()["path"]
    shown = look(client, here)
    assert {one.attributes["src"] for one in shown.all("img")} == {f"{here}/{n}/thumbnail.webp" for n in (0, 1)}
    assert client.get(f"{here}/1.png").data == b"picture 1"
    assert client.get(f"{here}/1/thumbnail.webp").data == b"thumbnail 1"
    answer = client.get(here)
    assert "noindex" in answer.headers["X-Robots-Tag"]
    assert answer.headers["Content-Security-Policy"]
    assert not shown.all("nav")
    assert "ann" not in shown.text.split()


def test_link_to_a_picture_shows_no_other(client, share, job):
    here = share(index=1)["path"]
    assert [one.attributes["src"] for one in look(client, here).all("img")] == [f"{here}/1.png"]
    assert client.get(f"{here}/0.png").status_code == 404
    assert client.get(f"{here}/0/thumbnail.webp").status_code == 404
    assert client.get(f"/api/v1/jobs/{job.id}").status_code == 401


def test_all_pictures_of_a_job_are_shown_however_many_were_deleted(client, sessions):
    [job_id] = fill(sessions, 203, owners=("ann",))
    run(sessions, f"UPDATE pictures SET deleted_at = now() WHERE job_id = {job_id} AND index < 2")
    link = client.post(URL, json={"job": job_id}, headers=ANN).get_json()["link"]
    shown = {one.attributes["alt"] for one in look(client, link).all("img")}
    assert shown == {f"Picture {number}" for number in range(3, 204)}
    refused = client.post(URL, json={"job": job_id, "index": 1}, headers=ANN)
    assert refused.status_code == 404
    assert client.post(URL, json={"job": job_id, "index": 2}, headers=ANN).status_code == 201


def test_link_ends_when_it_is_revoked_when_its_time_has_come_and_with_its_job(client, share, sessions, job):
    first, second, third = share(), share(index=0), share()
    assert client.delete(f"{URL}/{first['id']}", headers=BOB).status_code == 404
    assert client.delete(f"{URL}/{first['id']}", headers=ANN).status_code == 204
    run(sessions, f"UPDATE shares SET expires_at = now() - interval '1 second' WHERE id = {second['id']}")
    assert [one["id"] for one in client.get(URL, headers=ANN).get_json()["shares"]] == [third["id"]]
    assert [client.get(one["path"]).status_code for one in (first, second, third)] == [404, 404, 200]
    transact(sessions, partial(transitions.delete, whose=EVERYBODYS, job_id=job.id))
    assert client.get(third["path"]).status_code == 404


def test_token_is_shown_once_and_kept_as_a_digest(client, share, sessions):
    made = share()
    token = made["link"].rpartition("/")[2]
    assert client.get(URL, headers=ANN).get_json()["shares"][0]["link"] is None
    stored = transact(sessions, lambda session: session.query(Share).one())
    assert token not in vars(stored).values()
    assert client.get(f"/s/{stored.digest}").status_code == 404


@pytest.mark.parametrize(
    ("given", "status", "field"),
    [
        ({"job": 999}, 404, None),
        ({"index": 9}, 404, None),
        ({"days": 0}, 422, "days"),
        ({"days": 366}, 422, "days"),
        ({"job": "1"}, 422, "job"),
        ({"token": "mine"}, 422, "token"),
    ],
)
def test_what_cannot_be_shared_is_refused(client, job, given, status, field):
    answer = client.post(URL, json={"job": job.id} | given, headers=ANN)
    assert answer.status_code == status
    assert [problem["field"] for problem in answer.get_json()["errors"]] == ([field] if field else [])
    assert client.post(URL, json={"job": job.id}, headers=BOB).status_code == 404


def test_an_owner_has_a_bounded_number_of_links(client, share, job, monkeypatch):
    monkeypatch.setattr(shares, "MOST", 1)
    share()
    assert client.post(URL, json={"job": job.id}, headers=ANN).status_code == 422


def test_two_links_are_not_made_at_a_time(sessions, job):
    """Each would count the links that there are, and make the last one."""
    with sessions.begin() as first:
        shares.make(first, "ann", job.id, None, 1)
        with sessions() as second:
            second.execute(text("SET LOCAL lock_timeout = '20ms'"))
            with pytest.raises(OperationalError, match="lock timeout"):
                shares.make(second, "ann", job.id, None, 1)


def test_pages_make_list_and_revoke_a_link(client, job):
    with client.session_transaction() as session:
        session["csrf"] = "token"
    client.post("/sign-in", data={"key": "anns-key-1", "csrf_token": "token"})
    with client.session_transaction() as session:
        session["csrf"] = "token"
    assert look(client, f"/jobs/{job.id}").all("form", action="/shares")
    made = client.post("/shares", data={"job": str(job.id), "index": "1", "csrf_token": "token"})
    [link], again = links(client, made.location), links(client, made.location)
    assert again == []  # it is shown once, and a reload makes no other
    assert client.get(link).status_code == 200
    actions = [one.attributes.get("action", "") for one in look(client, "/shares").all("form")]
    [revoke] = [action for action in actions if action.endswith("/revoke")]
    client.post(revoke, data={"csrf_token": "token"})
    assert client.get(link).status_code == 404
    assert client.post("/shares", data={"job": "0", "csrf_token": "token"}).status_code == 422
