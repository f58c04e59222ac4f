"""One transaction a use case: repeated when PostgreSQL asks for it, Unavailable when it is away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from shared.db import sessions as database
from shared.db.tables import Job
from shared.errors import Conflict, TooSlow, Unavailable
from tests.support.waiting import until


def test_a_transaction_is_whole_or_not_at_all(sessions, job_factory):
    job = job_factory()

    def work(session):
        session.get_one(Job, job.id).state = "failed"
        session.flush()
        raise Conflict("no")

    with pytest.raises(Conflict):
        database.transact(sessions, work)

    with sessions() as session:
        assert session.get_one(Job, job.id).state == "open"


def test_a_deadlock_is_run_again(sessions, job_factory):
    jobs = [job_factory().id, job_factory().id]
    barrier = Barrier(2)
    tries = []

    def work(order):
        def both(session):
            tries.append(order)
            for turn, job_id in enumerate(order):
                session.execute(text("UPDATE jobs SET checkpoint = checkpoint || 'x' WHERE id = :id"), {"id": job_id})
                if turn == 0 and len(tries) <= 2:
                    barrier.wait(10)

        return database.transact(sessions, both)

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(work, jobs), pool.submit(work, jobs[::-1])]:
            future.result(30)

    assert len(tries) in {3, 4}  # a victim that is quick may meet the same fate once more
    with sessions() as session:
        assert [name.count("x") for name in session.scalars(select(Job.checkpoint))] == [2, 2]


def test_a_lost_race_for_a_unique_row_is_run_again(sessions):
    add = text("INSERT INTO drains (worker, reason) VALUES ('here', :reason)")
    known = text("SELECT reason FROM drains")
    seen = []

    def work(session):
        seen.append(session.scalar(known))
        if not seen[-1]:
            session.execute(add, {"reason": "late"})
        return session.scalar(known)

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as first:
            first.execute(add, {"reason": "first"})
            waiting = pool.submit(database.transact, sessions, work)
            until(lambda: first.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))
        assert waiting.result(10) == "first"
    assert seen == [None, "first"]


def test_each_statement_of_autocommit_stands_for_itself(sessions, job_factory):
    job = job_factory()

    def work(session):
        session.execute(text("UPDATE jobs SET checkpoint = checkpoint || 'x' WHERE id = :id"), {"id": job.id})
        raise Conflict("no")

    for factory in (sessions, database.autocommit(sessions), sessions):  # they share their connections
        with pytest.raises(Conflict):
            database.transact(factory, work)

    with sessions() as session:
        assert session.get_one(Job, job.id).checkpoint == job.checkpoint + "x"


def test_a_connection_cut_in_the_middle_is_unavailable(sessions):
    def work(session):
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(Unavailable):
        database.transact(sessions, work)

    assert database.transact(sessions, lambda session: session.scalar(text("SELECT 1"))) == 1


@pytest.mark.parametrize("trusted_seconds", [0.0, 60.0])
def test_connections_that_were_cut_while_they_rested_are_replaced(database_url, sessions, monkeypatch, trusted_seconds):
    monkeypatch.setattr(database, "_TRUSTED_SECONDS", trusted_seconds)
    rested = [database.transact(sessions, backend)]
    other = database.connect(database_url)
    cut = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = :pid"

    with other.begin() as connection:
        assert connection.execute(text(cut), {"pid": rested[0]}).scalar()
    other.dispose()

    assert database.transact(sessions, backend) not in rested


def backend(session):
    return session.scalar(text("SELECT pg_backend_pid()"))


def test_a_server_that_is_away_is_unavailable(tmp_path):
    engine = database.connect(f"postgresql+psycopg:///farm?host={tmp_path}")

    with pytest.raises(Unavailable):
        database.transact(database.sessions(engine), lambda session: session.scalar(text("SELECT 1")))


def test_a_silent_server_is_given_up_by_tcp_too(sessions):
    with sessions() as session:
        asked = session.connection().connection.driver_connection.info.get_parameters()
    assert {"keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"} <= asked.keys()


def test_a_used_up_pool_is_unavailable(database_url, monkeypatch):
    engine = database.connect(database_url, pool_size=1)
    monkeypatch.setattr(engine.pool, "_timeout", 0.01)
    factory = database.sessions(engine)

    with factory() as first, factory() as second:
        first.execute(text("SELECT 1"))
        second.execute(text("SELECT 1"))
        with pytest.raises(Unavailable, match="Too many transactions"):
            database.transact(factory, lambda session: session.scalar(text("SELECT 1")))
    engine.dispose()


def test_a_mistake_is_no_outage(sessions, job_factory):
    job = job_factory()

    with pytest.raises(IntegrityError):
        database.transact(
            sessions,
            lambda session: session.execute(text("UPDATE jobs SET unfinished = -1 WHERE id = :id"), {"id": job.id}),
        )


def test_what_takes_longer_than_it_may_is_told_from_a_database_that_is_away(sessions, job_factory):
    job_factory()
    with pytest.raises(TooSlow):
        database.transact(
            sessions, lambda session: session.execute(text("SET LOCAL statement_timeout = 20; SELECT pg_sleep(5)"))
        )
    held = "SELECT id FROM jobs FOR UPDATE"
    with sessions.begin() as session:
        session.execute(text(held))
        with pytest.raises(TooSlow):
            database.transact(sessions, lambda other: other.execute(text(f"SET LOCAL lock_timeout = 20; {held}")))
