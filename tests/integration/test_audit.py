"""The audit log: who did what, in the transaction of the deed, and kept as it was written."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from api.services import EXTENSION
from cli import audit as command
from client.client import Client
from shared.accounts import audit
from shared.accounts.audit import Action
from shared.accounts.principal import LOCAL, Role
from shared.db.sessions import transact
from shared.queue import transitions
from tests.support.keys import headers_of
from tests.support.queueing import Farmhand

AUDIT = "/api/v1/audit"


@pytest.fixture(scope="module")
def app(standing_app):
    return standing_app


@pytest.fixture(scope="module")
def known(app):
    """The application's database, and the headers of each owner's key."""
    sessions = app.extensions[EXTENSION].sessions
    return sessions, headers_of(sessions, {"root": Role.ADMIN, "oz": Role.OPERATOR, "ann": Role.USER})


@pytest.fixture
def send(client, known):
    """Sends a request with an owner's key, and returns the answer, which is a success."""

    def ask(method, path, who="ann", **given):
        answer = client.open(path, method=method, headers=known[1][who], **given)
        assert answer.status_code < 400, answer.text
        return answer

    return ask


@pytest.fixture
def latest(send):
    """The latest lines, as (who, action, whose)."""

    def ask(count, query=""):
        lines = send("GET", f"{AUDIT}?limit={count}{query}", "root").get_json()["lines"]
        return [(one["owner"], one["action"], one["whose"]) for one in lines]

    return ask


@pytest.fixture
def job(send):
    """A job of ann's that waits."""
    return send("POST", "/api/v1/jobs", json={"prompt": "sea", "steps": 2}).get_json()["id"]


def test_what_others_do_with_a_job_is_written_down_and_what_its_owner_does_is_not(send, latest, job):
    before = latest(1)
    send("POST", f"/api/v1/jobs/{job}/hold")
    assert latest(1) == before
    send("POST", f"/api/v1/jobs/{job}/release", "root")
    send("POST", f"/api/v1/queue/{job}/hold", "oz")
    send("PATCH", f"/api/v1/jobs/{job}", "root", json={"priority": 3})
    send("POST", f"/api/v1/queue/{job}/cancel", "oz")
    send("POST", f"/api/v1/jobs/{job}/retry", "root")
    send("POST", f"/api/v1/jobs/{job}/cancel", "root")
    send("DELETE", f"/api/v1/jobs/{job}", "root")
    assert latest(7) == [
        ("root", "job.deleted", "ann"),
        ("root", "job.cancelled", "ann"),
        ("root", "job.retried", "ann"),
        ("oz", "job.cancelled", "ann"),
        ("root", "job.changed", "ann"),
        ("oz", "job.held", "ann"),
        ("root", "job.released", "ann"),
    ]


def test_keys_webhooks_and_links_are_written_down_without_what_is_secret(send, latest, job):
    key = send("POST", "/api/v1/keys", "root", json={"name": "laptop", "owner": "bob", "days": 3}).get_json()
    send("DELETE", f"/api/v1/keys/{key['id']}", "root")
    send("DELETE", f"/api/v1/keys/{key['id']}", "root")  # which changes nothing
    hook = send("POST", "/api/v1/webhooks", json={"url": "https://example.com/hook/token"}).get_json()
    rotated = send("POST", f"/api/v1/webhooks/{hook['id']}/rotate").get_json()
    send("PATCH", f"/api/v1/webhooks/{hook['id']}", json={"paused": True})
    send("DELETE", f"/api/v1/webhooks/{hook['id']}")
    link = send("POST", "/api/v1/shares", json={"job": job}).get_json()
    send("DELETE", f"/api/v1/shares/{link['id']}")
    assert latest(8) == [
        *(("ann", f"share.{deed}", "ann") for deed in ("revoked", "made")),
        *(("ann", f"webhook.{deed}", "ann") for deed in ("deleted", "changed", "rotated", "made")),
        *(("root", f"key.{deed}", "bob") for deed in ("revoked", "made")),
    ]
    written = send("GET", AUDIT, "root").text
    assert "laptop, user, 3 days" in written
    for secret in (key["key"], hook["secret"], rotated["secret"], "token", link["link"].rpartition("/")[2]):
        assert secret not in written


def test_a_worker_that_is_paused_is_written_down(send, latest, known):
    worker = Farmhand(known[0]).worker()
    send("POST", f"/api/v1/workers/{worker.name}/drain?reason=dust", "oz")
    send("POST", f"/api/v1/workers/{worker.name}/resume", "oz")
    assert latest(2) == [("oz", "worker.resumed", None), ("oz", "worker.drained", None)]


def test_pictures_that_an_admin_deletes_are_written_down(send, latest, known, job):
    hand = Farmhand(known[0])
    worker = hand.worker()
    while ours := worker.claim():
        hand.run(transitions.finish, ours, 9)
    before = latest(1)
    send("POST", "/api/v1/pictures/actions", json={"action": "favourite", "ids": [f"{job}.0"]})
    send("POST", "/api/v1/pictures/actions", "root", json={"action": "delete", "ids": [f"{job}.0"]})
    send("POST", "/api/v1/pictures/actions", json={"action": "restore", "ids": [f"{job}.0"]})
    assert latest(2) == [("root", "pictures.deleted", "ann"), *before]
    send("POST", "/api/v1/pictures/actions", "root", json={"action": "tag", "tag": "sea", "ids": [f"{job}.0"]})
    send("PATCH", f"/api/v1/pictures/{job}/0", "root", json={"favourite": True})
    send("PATCH", f"/api/v1/pictures/{job}/0", json={"favourite": False})
    assert latest(3) == [*[("root", "pictures.marked", "ann")] * 2, ("root", "pictures.deleted", "ann")]
    told = [one["detail"] for one in send("GET", f"{AUDIT}?limit=2", "root").get_json()["lines"]]
    assert told == ["", "tag sea"]


def test_a_draft_that_an_admin_approves_is_written_down_once(send, latest):
    sweep = {"axes": [{"field": "cfg_scale", "values": [5, 6]}], "draft": {"steps": 2}}
    draft = send("POST", "/api/v1/jobs", json={"prompt": "sea", "steps": 4, "sweep": sweep}).get_json()["id"]
    before = latest(1)
    for _ in range(2):
        send("POST", f"/api/v1/jobs/{draft}/approve", "root")
    assert latest(2) == [("root", "job.approved", "ann"), *before]


def test_limits_that_are_set_on_the_page_are_written_down_where_they_differ(send, latest, known):
    page = {"owner": "ann", "queued": "20", "checkpoints": "a b,c"}
    send("POST", "/limits", "root", data=page)
    before = latest(1)
    send("POST", "/limits", "root", data=page)
    assert latest(1) == before == [("root", "limits.set", "ann")], "nothing has changed"
    send("POST", "/limits", "root", data=page | {"queued": "none", "checkpoints": "", "urgent": "yes"})
    send("DELETE", "/api/v1/limits/owners/ann", "root")
    told = [one["detail"] for one in send("GET", f"{AUDIT}?limit=3", "root").get_json()["lines"]]
    assert told == ["", "checkpoints=role queued=none urgent=yes", "checkpoints='a b,c' queued=20"]


def test_the_page_tells_a_line_in_the_readers_language(send, known):
    send("POST", "/api/v1/keys", "root", json={"name": "days, user, 3 days", "owner": "bob", "days": 2})
    send("PATCH", "/api/v1/limits/owners/bob", "root", json={"queued": 20, "running": None})
    send("DELETE", "/api/v1/limits/owners/bob", "root")
    send("DELETE", "/api/v1/owners/bob", "root")
    chinese = send("GET", "/audit?owner=bob&lang=zh", "root").text
    for told in (
        "days, user, 3 days · user · 2 天",
        "等待中的图像: 20 · 同时渲染的图像数: 不限",
        "所有内容 · 属于 bob · 1 个密钥 · 0 个任务",
    ):
        assert told in chinese
    english = send("GET", "/audit?owner=bob&lang=en", "root").text
    for told in ("days, user, 3 days · user · 2 days", "images that wait: 20 · images that run at once: no limit"):
        assert told in english


def test_a_detail_that_is_too_long_says_that_it_was_cut(send, known):
    send("PATCH", "/api/v1/limits/owners/eve", "root", json={"checkpoints": [one * 200 for one in "abc"]})
    [line] = send("GET", f"{AUDIT}?owner=eve", "root").get_json()["lines"]
    assert (len(line["detail"]), line["detail"][-2:]) == (500, "c…")
    assert line["detail"] in send("GET", "/audit?owner=eve&lang=en", "root").text, "it stays as it is"


def test_lines_are_found_by_owner_and_action_page_by_page(send, latest, job):
    send("POST", f"/api/v1/jobs/{job}/cancel", "root")
    assert latest(1, "&owner=ann") == [("root", "job.cancelled", "ann")]
    assert {action for _, action, _ in latest(200, "&action=key.made")} == {"key.made"}
    first = send("GET", f"{AUDIT}?limit=2", "root").get_json()
    second = send("GET", f"{AUDIT}?limit=2&cursor={first['next']}", "root").get_json()
    ids = [line["id"] for line in (*first["lines"], *second["lines"])]
    assert ids == sorted(ids, reverse=True)
    assert len({*ids}) == 4
    page = send("GET", "/audit?owner=ann", "root").text
    assert "root cancelled a job" in page


def test_a_deed_that_is_rolled_back_is_not_written_down(sessions):
    with sessions() as session:
        audit.note(session, LOCAL, Action.JOB_HELD, "job 1")
        session.rollback()
    assert transact(sessions, audit.listed) == []


@pytest.fixture
def lines(sessions):
    """The database of a log with a line of now and one that is older than a year."""
    transact(sessions, lambda session: audit.note(session, LOCAL, Action.JOB_HELD, "job 1", detail="\x00"))
    old = """
        INSERT INTO audit_log (at, owner, role, action, object, detail)
        VALUES (now() - interval '366 days', 'ann', 'user', 'key.made', 'key 1', '')
    """
    transact(sessions, lambda session: session.execute(text(old)))
    return sessions


@pytest.mark.parametrize(
    "change", ["UPDATE audit_log SET owner = 'eve'", "DELETE FROM audit_log", "TRUNCATE audit_log"], ids=str
)
def test_no_statement_changes_a_line_or_deletes_one_within_a_year(lines, change):
    with pytest.raises(DBAPIError, match="kept for a year"):
        transact(lines, lambda session: session.execute(text(change)))
    assert len(transact(lines, audit.listed)) == 2


def test_the_chore_deletes_lines_that_are_older_than_a_year(lines):
    assert transact(lines, audit.forget) == 1
    assert transact(lines, audit.forget) == 0
    assert [line.action for line in transact(lines, audit.listed)] == ["job.held"]


def test_the_command_lists_lines(send, capsys):
    def answered(request):
        answer = send("GET", request.url.raw_path.decode(), "root")
        return httpx.Response(answer.status_code, content=answer.data, headers=dict(answer.headers))

    with Client("http://farm", transport=httpx.MockTransport(answered)) as client:
        command.show(client, None, "key.made", limit=5, as_json=False)
    assert "key.made" in capsys.readouterr().out
