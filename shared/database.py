"""Sessions: one transaction per use case, opened at the entry point, retried when PostgreSQL asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from shared.errors import TooSlow, Unavailable

T = TypeVar("T")
Sessions = sessionmaker[Session]

# Deadlock detected, serialization failure, a unique row that another made first: the same transaction goes through the
# next time, or sees why not.
_RETRY = frozenset({"40P01", "40001", "23505"})
_TRIES = 5
# Given up for a statement's time, or for a lock's: the server is well.
_TIMEOUTS = frozenset({"57014", "55P03"})
# Over TCP a silent server is given up after 5 + 3 * 2 s of waiting, and after 10 s if it takes nothing we send.
_KEEPALIVES = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
_TRUSTED_SECONDS = 1.0  # a connection that was used this recently is used again unasked: asking is a round trip
_AWAY = "The database does not answer; the farm goes on when it is back."


def connect(url: str, *, pool_size: int = 10, application: str = "stepfarm", plans_once: bool = False) -> Engine:
    """Return an engine whose connections are checked after a pause and give up on a silent server in seconds.

    With `plans_once` a statement that comes again is run by one plan for all parameters, where PostgreSQL would go on
    planning: half of what a claim and a finish cost it. For who sends few statements, each with its index: a plan that
    was made while the tables were empty must not read them whole when they are full.
    """
    options = "-c statement_timeout=10000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=10000"
    if plans_once:
        options += " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off"
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=5,
        connect_args={
            "application_name": application,
            "connect_timeout": 5,
            **_KEEPALIVES,
            "options": options,
        },
    )
    _check_after_a_pause(engine)
    return engine


def _check_after_a_pause(engine: Engine) -> None:
    """Have connections that rested asked whether they still are before they are used; if not, all are made anew."""

    @event.listens_for(engine, "checkin")
    def rests(_: object, record: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        record.info["rests_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def is_used(connection: Any, record: Any, _: object) -> None:  # noqa: ANN401 - SQLAlchemy's
        rests_since = record.info.pop("rests_since", None)
        if rests_since is None or time.monotonic() - rests_since < _TRUSTED_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error


def sessions(engine: Engine) -> Sessions:
    """Return the factory of sessions: objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def autocommit(factory: Sessions) -> Sessions:
    """Return the factory of sessions on the same connections in which each statement is a transaction of its own.

    It goes to the server and back once, where BEGIN and COMMIT make it three times.
    """
    return sessions(factory.kw["bind"].execution_options(isolation_level="AUTOCOMMIT"))


def transact(factory: Sessions, work: Callable[[Session], T]) -> T:
    """Run `work` in one transaction and return what it returns.

    Runs it again after a deadlock, a serialization failure, a lost race for a unique row, and once where the connection
    had broken before the commit: it may have rested while the database was started anew. Raises Unavailable when the
    database is away: what the transaction did is then unknown if the connection broke during the commit, or during any
    statement of an `autocommit` session, so `work` must be one to repeat safely.
    """
    with answered():
        return _transact(factory, work)


@contextmanager
def answered() -> Iterator[None]:
    """Turn what a database raises that is away into Unavailable; that took too long, into TooSlow."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) in _TIMEOUTS:
            raise TooSlow("The database took too long for this; the farm goes on.") from error
        if error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError)):
            raise Unavailable(_AWAY) from error
        raise
    except PoolTimeout as error:
        raise Unavailable("Too many transactions at once; try again.") from error


def _transact(factory: Sessions, work: Callable[[Session], T]) -> T:
    has_broken = False
    for attempt in range(1, _TRIES + 1):
        is_commit = False
        try:
            with factory.begin() as session:
                answer = work(session)
                is_commit = True
        except DBAPIError as error:
            is_stale = error.connection_invalidated and not has_broken and not is_commit
            has_broken |= is_stale
            if attempt == _TRIES or not (is_stale or getattr(error.orig, "sqlstate", None) in _RETRY):
                raise
        else:
            return answer
    raise AssertionError("unreachable")


def probe(factory: Sessions) -> str | None:
    """Return the revision that the database's tables stand at; None: there are none. Raises Unavailable.

    Cheap, for readiness checks; `shared.migrate.head` is the revision that it should be.
    """

    def revision(session: Session) -> str | None:
        is_there = session.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
        found: str | None = session.scalar(text("SELECT version_num FROM alembic_version")) if is_there else None
        return found

    return transact(factory, revision)
