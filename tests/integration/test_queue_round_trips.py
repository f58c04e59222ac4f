"""How often one image's way asks the database: each statement is a wait of every slot."""

from __future__ import annotations

import pytest

from shared import database
from tests.integration.queueing import Farmhand
from tests.integration.statements import statements


@pytest.fixture
def hand(sessions):
    return Farmhand(sessions)


def test_an_image_ends_with_one_statement_and_so_does_its_job(sessions, hand, job_factory):
    job = job_factory(count=2)
    worker = hand.worker()
    first, last = worker.claim(), worker.claim()

    with statements(sessions) as of_the_first:
        hand.finish(first)
    with statements(sessions) as of_the_last:
        hand.finish(last)

    assert (len(of_the_first), len(of_the_last)) == (1, 1)
    assert (hand.job(job.id).unfinished, hand.job(job.id).state) == (0, "succeeded")


def test_a_connection_just_used_is_not_asked_whether_it_still_is(sessions, monkeypatch, job_factory):
    job = job_factory()
    asked = pings(sessions, monkeypatch)

    Farmhand(sessions).job(job.id)
    assert asked == []

    monkeypatch.setattr(database, "_TRUSTED_SECONDS", 0.0)
    Farmhand(sessions).job(job.id)
    assert len(asked) == 1


def pings(sessions, monkeypatch):
    dialect, asked = sessions.kw["bind"].dialect, []
    ping = dialect.do_ping
    monkeypatch.setattr(dialect, "do_ping", lambda connection: asked.append(connection) or ping(connection))
    return asked
