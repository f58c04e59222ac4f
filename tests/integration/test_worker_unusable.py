"""A worker whose card cannot be used says why, takes nothing, and tries the card again in a new process."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from sqlalchemy import select

from cli import farm_checks
from shared.db.sessions import transact
from shared.db.tables import History, Worker
from tests.support.browsing import look
from tests.support.unusable_worker import REASON
from tests.support.waiting import until
from tests.support.workers import images, ready, started, states
from worker.supervisor import child

TOLD = f"its card cannot be used: {REASON}"
MODULE = "tests.support.unusable_worker"


@pytest.fixture
def sign(settings) -> Path:
    """The file that makes the card unusable; the process says so for a minute."""
    settings.home.mkdir(parents=True, exist_ok=True)
    file = settings.home / "unusable"
    file.write_text("60")
    return file


def left(sessions) -> int:
    """Return how many workers have left the farm in order."""
    events = select(History).filter_by(event="left")
    return len(transact(sessions, lambda session: session.scalars(events).all()))


def told(sessions) -> list[tuple[str, str | None]]:
    return transact(
        sessions, lambda session: [tuple(row) for row in session.execute(select(Worker.state, Worker.trouble))]
    )


def test_a_worker_whose_card_cannot_be_used_says_why_everywhere_and_takes_nothing(  # noqa: PLR0917 - fixtures
    environ, settings, sessions, job_factory, client, sign
):
    with started(environ, "--card", "cpu:0", module=MODULE) as process:
        until(lambda: told(sessions) == [("drained", TOLD)])
        job_factory()
        [worker] = client.get("/api/v1/workers").get_json()["workers"]
        assert (worker["state"], worker["trouble"], worker["drained"]) == ("drained", TOLD, None)
        page = look(client, "/workers").text
        assert "unusable" in page
        assert f"{worker['name']} {TOLD}" in page
        assert f"{worker['name']} cannot use its card. See why" in page
        finding = farm_checks.workers(settings)
        assert finding.level == "bad"
        assert f"1 on this machine, and not all take pictures: cpu:0: {TOLD}" in finding.text
        assert "farm_workers_in_trouble 1.0" in client.get("/metrics").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == child.CLEAN
    [image] = images(sessions)
    assert (image.state, image.attempt, image.strikes) == ("queued", 0, 0)


def test_its_process_ends_after_a_while_and_the_next_one_renders_when_the_card_can_be_used(
    environ, sessions, job_factory, sign
):
    sign.write_text("0.1")
    job_factory()
    with started(environ, "--gpus", "cpu", module=MODULE):
        until(lambda: left(sessions))
        assert states(sessions) == ["queued"]
        sign.unlink()
        until(lambda: states(sessions) == ["succeeded"])
        assert ready(sessions)
    [image] = images(sessions)
    assert (image.attempt, image.strikes) == (1, 0)


def test_its_process_alone_ends_with_a_status_of_its_own(environ, sign):
    sign.write_text("0.1")
    with started(environ, "--card", "cpu:0", module=MODULE) as process:
        assert process.wait(30) == child.UNUSABLE


def test_a_process_that_says_why_is_not_taken_for_one_whose_start_hangs(environ, sessions, sign):
    sign.write_text("3")
    quick = {**environ, "FARM_HANG_FACTOR": "0.002"}  # the start, and the wait after it, hang after 1.8 s
    with started(quick, "--card", "cpu:0", module=MODULE) as process:
        assert process.wait(30) == child.UNUSABLE
