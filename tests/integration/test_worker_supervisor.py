from __future__ import annotations

import os
import signal
from pathlib import Path
from uuid import uuid4

from sqlalchemy import select

from shared.db.tables import History, Worker
from tests.support.nvidia import pretend
from tests.support.waiting import until
from tests.support.workers import images, kill, ready, started, states


def test_a_killed_worker_is_declared_dead_at_once_and_restarted(environ, sessions, job_factory, tmp_path):
    gate = tmp_path / "gate"
    slow = {**environ, "FARM_LEASE_SECONDS": "600", "FARM_BEAT_SECONDS": "0.3"}  # no lease ends here
    with started(slow, "--gpus", "cpu", "--slots", "1"):
        [first] = until(lambda: ready(sessions))
        job_factory(prompt=f"wait for {gate}")
        until(lambda: states(sessions) == ["running"])
        kill(first.pid)
        [second] = until(lambda: [worker for worker in ready(sessions) if worker.id != first.id])
        gate.touch()
        until(lambda: states(sessions) == ["succeeded"])
    [image] = images(sessions)
    assert (image.attempt, image.strikes) == (2, 1)
    assert second.pid != first.pid


def test_term_drains_all_workers(environ, sessions, job_factory, tmp_path):
    gate = tmp_path / "gate"
    with started(environ, "--gpus", "cpu:2", "--slots", "1") as supervisor:
        until(lambda: ready(sessions, 2))
        job_factory(prompt=f"wait for {gate}", count=2)
        until(lambda: states(sessions) == ["running"] * 2)
        supervisor.send_signal(signal.SIGTERM)
        until(lambda: not _workers(sessions, state="ready"), what="draining")
        gate.touch()
        assert supervisor.wait(60) == 0
    assert states(sessions) == ["succeeded"] * 2
    assert _workers(sessions) == []


def test_workers_drain_when_their_supervisor_is_killed_and_the_next_one_waits_for_the_card(
    environ, sessions, job_factory, tmp_path
):
    gate = tmp_path / "gate"
    with started(environ, "--gpus", "cpu", "--slots", "1") as supervisor:
        [orphan] = until(lambda: ready(sessions))
        job_factory(prompt=f"wait for {gate}")
        until(lambda: states(sessions) == ["running"])
        supervisor.kill()
        until(lambda: _workers(sessions, state="draining"))
        with started(environ, "--gpus", "cpu", "--slots", "1"):
            gate.touch()
            [successor] = until(lambda: ready(sessions))
            assert _events(sessions, "registered") == 2
    assert states(sessions) == ["succeeded"]
    until(lambda: not _is_alive(orphan.pid))
    assert successor.id != orphan.id


def test_a_worker_starts_again_while_another_card_keeps_nvidia_smi_from_answering(
    environ, sessions, monkeypatch, tmp_path
):
    cards = "".join(f"{number}, GPU-{uuid4()}, NVIDIA H200\n" for number in range(2))
    pretend(monkeypatch, tmp_path, cards)
    with started({**environ, "PATH": os.environ["PATH"]}, "--gpus", "1", "--slots", "1"):
        [first] = until(lambda: ready(sessions))
        pretend(monkeypatch, tmp_path, "The GPU is lost.", "The GPU is lost.", status=15)
        kill(first.pid)
        [again] = until(lambda: [worker for worker in ready(sessions) if worker.id != first.id])
    assert (again.card, again.card_name) == ("cuda:1", "NVIDIA H200")
    assert (tmp_path / "asked").read_text() == "asked\n" * 2  # the query and the list, once


def _workers(sessions, **columns):
    with sessions() as session:
        return list(session.scalars(select(Worker).filter_by(**columns)))


def _events(sessions, event):
    with sessions() as session:
        return len(session.scalars(select(History).filter_by(event=event)).all())


def _is_alive(pid):
    """True while the process runs; one that has ended may wait long for an init that collects it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
