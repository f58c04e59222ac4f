"""Who may ask for what: every route has a rule, and every role is let in by it and kept out by it."""

from __future__ import annotations

import pytest
from werkzeug.routing import Rule

from api.app import create_app
from api.security import rules
from api.services import EXTENSION
from shared.accounts import keys
from shared.accounts.principal import LOCAL, Role
from shared.db.sessions import transact

OTHERS = frozenset({"HEAD", "OPTIONS"})
VALUES = {
    "job_id": 4711,
    "index": 0,
    "key_id": 4711,
    "name": "x",
    "owner": "x",
    "sha256": "0" * 64,
    "upload_id": "0" * 64,
}
CHOICES = {"owner": "x", "extension": "png", "part": "noise", "way": "keep", "version": "1", "filename": "x"}


@pytest.fixture(scope="module")
def opened(standing_app):
    """The application of a farm where each role has a key: with the headers of each, and without any."""
    sessions = standing_app.extensions[EXTENSION].sessions
    headers = {}
    for role in (*reversed(Role),):
        wanted = keys.NewKey(f"the-{role}", role, "of a test")
        made = transact(sessions, lambda session, wanted=wanted: keys.create(session, wanted, LOCAL, others=False))
        headers[role] = {"Authorization": f"Bearer {made.key}"}
    return standing_app, headers


def asked(app) -> list[tuple[str, str, str]]:
    """Every route of the application: its endpoint, a method and an address of things that are not there."""
    return [
        (rule.endpoint, method, _address(app, rule))
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - OTHERS)
    ]


def _address(app, rule: Rule) -> str:
    values = {name: (VALUES | CHOICES).get(name, 1) for name in rule.arguments}
    with app.test_request_context():
        return app.url_map.bind("localhost").build(rule.endpoint, values, force_external=False)


def test_every_route_has_one_rule_and_every_rule_a_route(standing_app):
    endpoints = {rule.endpoint for rule in standing_app.url_map.iter_rules()}
    assert endpoints == {*rules.RULES, *rules.OPEN}
    assert not rules.OPEN & rules.RULES.keys()


def test_each_role_is_let_in_where_its_rule_says_and_nowhere_else(opened, monkeypatch):
    """The views themselves, which would take most of the time, only say that they were reached."""
    app, headers = opened
    for endpoint in rules.RULES:
        monkeypatch.setitem(app.view_functions, endpoint, lambda **_: "let in")
    client = app.test_client(use_cookies=False)
    wrong = [
        (method, address, role)
        for endpoint, method, address in asked(app)
        if endpoint not in rules.OPEN
        for role, sent in headers.items()
        if client.open(address, method=method, headers=sent).status_code
        != (200 if role.includes(rules.RULES[endpoint]) else 403)
    ]
    assert wrong == []


def test_without_a_key_only_open_routes_answer(opened):
    app, _ = opened
    client = app.test_client(use_cookies=False)
    told = {
        endpoint: client.open(address, method=method).status_code
        for endpoint, method, address in asked(app)
        if endpoint not in rules.OPEN
    }
    assert {endpoint: status for endpoint, status in told.items() if status not in (401, 303)} == {}
    assert client.get("/livez").status_code == 200


def test_what_another_owner_has_is_not_there_for_anybody_but_an_admin(opened, checkpoint_job):
    app, headers = opened
    client, job = app.test_client(use_cookies=False), f"/api/v1/jobs/{checkpoint_job}"
    told = {role: client.get(job, headers=sent).status_code for role, sent in headers.items()}
    assert told == {Role.VIEWER: 404, Role.USER: 404, Role.OPERATOR: 404, Role.ADMIN: 200}
    cancelled = {role: client.post(f"{job}/cancel", headers=sent).status_code for role, sent in headers.items()}
    assert cancelled == {Role.ADMIN: 200, Role.OPERATOR: 404, Role.USER: 404, Role.VIEWER: 403}


def test_an_operator_sees_and_stops_everybodys_jobs_and_nothing_of_what_they_render(opened, checkpoint_job):
    app, headers = opened
    client, queue = app.test_client(use_cookies=False), "/api/v1/queue"
    listed = client.get(queue, headers=headers[Role.OPERATOR])
    [job] = [one for one in listed.get_json()["jobs"] if one["id"] == checkpoint_job]
    assert (job["owner"], job["state"], job["counts"]["queued"]) == ("bob", "queued", 1)
    page = client.get("/queue", headers=headers[Role.OPERATOR] | {"Accept": "text/html"})
    moves = [
        client.post(f"{queue}/{checkpoint_job}/{move}", headers=headers[Role.OPERATOR])
        for move in ("hold", "release", "cancel")
    ]
    assert [answer.get_json()["job"]["state"] for answer in moves] == ["held", "queued", "cancelled"]
    assert not any("a secret sea" in answer.text for answer in (listed, page, *moves))


@pytest.fixture
def checkpoint_job(opened):
    """A job of somebody else."""
    app, _ = opened
    sessions = app.extensions[EXTENSION].sessions
    wanted = keys.NewKey("bob", Role.USER, "of a test")
    made = transact(sessions, lambda session: keys.create(session, wanted, LOCAL, others=False))
    client = app.test_client(use_cookies=False)
    answer = client.post("/api/v1/jobs", json={"prompt": "a secret sea"}, headers={"X-API-Key": made.key})
    return answer.get_json()["id"]


def test_owners_that_a_setting_names_are_admins(settings):
    given = {"api_keys": {"anns-long-key": "ann", "bobs-long-key": "bob"}, "admins": "ann"}
    app = create_app(settings.model_copy(update=given))
    client = app.test_client(use_cookies=False)
    told = [
        client.get("/api/v1/queue", headers={"X-API-Key": f"{name}s-long-key"}).status_code for name in ("ann", "bob")
    ]
    assert told == [200, 403]
    app.extensions[EXTENSION].close()
