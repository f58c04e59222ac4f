"""What `farm doctor` says about a farm's servers, where they are not as they should be."""

from __future__ import annotations

import json
import socket

import pytest
from redis import Redis
from sqlalchemy import text

from cli import farm_checks
from cli.standalone import redeliver
from client.client import Client
from shared.db.sessions import transact
from shared.db.states import WorkerState
from shared.errors import CARD_UNUSABLE
from shared.models.folders import ModelFolders
from shared.queue import workers
from tests.support.servers import administrator


@pytest.mark.parametrize(
    ("version", "is_old"), [("6.0.20", True), ("6.2.14", False), ("7.2.11", False), ("10.0", False)]
)
def test_a_redis_that_is_too_old_is_told(settings, monkeypatch, version, is_old):
    monkeypatch.setattr(Redis, "info", lambda *_: {"redis_version": version})
    found = farm_checks.redis(settings)
    assert ("too old" in found.text) == is_old
    assert version in found.text


def test_a_valkey_is_called_by_its_own_name(settings, monkeypatch):
    monkeypatch.setattr(Redis, "info", lambda *_: {"redis_version": "7.2.4", "valkey_version": "9.1.2"})
    assert farm_checks.redis(settings).text == "Valkey 9.1.2"


def test_the_embedded_server_is_told_of(settings):
    assert farm_checks.redis(settings).text.startswith(("Valkey ", "Redis "))


def test_a_farm_that_is_up_is_asked_of_its_models_whatever_folder_lies_here(settings, monkeypatch):
    known = [{"name": "demo", "usable": True, "reason": None}]
    monkeypatch.setattr(Client, "catalogue", lambda *_: {"checkpoints": known})
    changes = {"models": ModelFolders((settings.home / "nowhere",)), "url": "http://127.0.0.1:1"}
    elsewhere = settings.model_copy(update=changes)
    assert farm_checks.models(elsewhere) == farm_checks.fine("demo")
    alone = elsewhere.model_copy(update={"url": ""})
    assert "There is no folder" in farm_checks.models(alone).text


def test_a_database_that_only_reads_is_told(settings, home):
    name = settings.database.partition("?")[0].rpartition("/")[2]
    assert farm_checks.database(settings).level == "fine"
    with administrator(home) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")  # type: ignore[arg-type]
    assert "only reads" in farm_checks.database(settings).text


def test_why_nobody_may_in_is_told(settings):
    wrong = settings.model_copy(update={"database_url": settings.database_url.replace("farm@", "nobody:s3cret@")})
    found = farm_checks.database(wrong)
    assert 'role "nobody" does not exist' in found.text
    assert "s3cret" not in found.text


def test_what_was_given_up_is_told_with_what_to_do_next(settings, sessions, capsys):
    assert farm_checks.events(settings).level == "fine"
    with sessions.begin() as session:
        columns = "at, kind, job_id, owner, reason, dead_at"
        session.execute(text(f"INSERT INTO outbox ({columns}) VALUES (now(), 'job_ended', 7, 'ann', 'no font', now())"))
    found = farm_checks.events(settings)
    assert (found.level, "no font" in found.text, "farm db redeliver" in found.advice) == ("bad", True, True)
    redeliver(settings, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"events": 1}
    assert farm_checks.events(settings).level == "fine"


@pytest.mark.parametrize(
    ("trouble", "level"),
    [
        (f"{CARD_UNUSABLE}: its memory is full", "bad"),
        ("sick, but goes on: too few others take pictures of the pool default", "fine"),
        (None, "fine"),
    ],
)
def test_only_a_card_that_cannot_be_used_is_said_to_be_tried_again(settings, sessions, trouble, level):
    said = {"phase": "", "resident": [], "load_seconds": None, "running": {}, "lease_seconds": 60}
    host = {"name": "here/cuda:0", "host": socket.gethostname(), "card": "cuda:0", "card_name": "NVIDIA H200"}
    worker_id = transact(
        sessions, lambda session: workers.register(session, **host, pid=1, pool="default", slots=1, lease_seconds=60)
    )
    transact(
        sessions,
        lambda session: workers.heartbeat(session, worker_id, **said, state=WorkerState.DRAINED, trouble=trouble),
    )
    found = farm_checks.workers(settings)
    assert found.text.startswith("1 on this machine")
    assert found.level == level
    assert ("tried again" in found.advice) == (level == "bad")
