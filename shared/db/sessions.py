"""Sessions: one transaction per use case, opened at the entry point, retried when PostgreSQL asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from shared.errors import SettingsError, TooSlow, Unavailable

T = TypeVar("T")
Sessions = sessionmaker[Session]

# Deadlock detected, serialization failure, a unique row that another made first: the same transaction goes through the
# next time, or sees why not.
_RETRY = frozenset({"40P01", "40001", "23505"})
_TRIES = 5
# Given up for a statement's time, or for a lock's: the server is well.
_TIMEOUTS = frozenset({"57014", "55P03"})
_READS_ONLY = "25006"
_FORBIDS = "42501"
# Over TCP a silent server is given up after 5 + 3 * 2 s of waiting, and after 10 s if it takes nothing we send.
_KEEPALIVES = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
# What a server or its database may have set otherwise, and what is read would then mean something else.
_FORMATS = {
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
}
_LIMITS = {
    "statement_timeout": "10000",  # milliseconds, as the next two
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "10000",
}
_ONE_PLAN = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_bitmapscan": "off"}
_MARK = "stepfarm.options"  # asked for with the rest: a connection without it has lost them all
_LONGEST_REASON = 400  # characters
_TRUSTED_SECONDS = 1.0  # a connection that was used this recently is used again unasked: asking is a round trip
_AWAY = "The database does not answer; the farm goes on when it is back."
_ONLY_READS = "The database takes no changes now; the farm goes on when it does again."
_STANDBY = "the server only reads, as a standby does: name the one that writes in FARM_DATABASE_URL"
_REFUSES = "The database refuses the farm what it needs; the farm goes on when that is granted again."
_POOLER = (
    "what the farm asks for at connect does not reach PostgreSQL: a pooler such as PgBouncer stands between. "
    "Name PostgreSQL itself in FARM_DATABASE_URL; the farm pools its connections by itself"
)


def connect(url: str, *, pool_size: int = 10, application: str = "stepfarm", plans_once: bool = False) -> Engine:
    """Return an engine whose connections are checked after a pause and give up on a silent server in seconds.

    With `plans_once` a statement that comes again is run by one plan for all parameters, where PostgreSQL would go on
    planning: half of what a claim and a finish cost it. For who sends few statements, each with its index: a plan that
    was made while the tables were empty must not read them whole when they are full.
    """
    asked = _LIMITS | _ONE_PLAN if plans_once else _LIMITS
    engine = _engine(url, application, asked, pool_size=pool_size, max_overflow=pool_size, pool_timeout=5)
    _check_after_a_pause(engine)
    return engine


def connect_once(url: str, application: str = "stepfarm") -> Engine:
    """Return an engine without a pool, whose statements may take as long as they need: for migrations and checks."""
    return _engine(url, application, {}, poolclass=NullPool)


def _engine(url: str, application: str, options: dict[str, str], **pool: Any) -> Engine:  # noqa: ANN401 - SQLAlchemy's
    parsed = make_url(url)
    _refuse_unknown_options(parsed)
    engine = create_engine(parsed, connect_args=_arguments(parsed, application, options), hide_parameters=True, **pool)
    event.listen(engine, "connect", _refuse_a_pooler)
    event.listen(engine, "handle_error", _give_up_a_standby)
    return engine


def _refuse_unknown_options(url: URL) -> None:
    try:
        make_conninfo(**{name: str(value) for name, value in url.query.items()})
        int(str(url.query.get("connect_timeout", 0)))
    except (psycopg.Error, ValueError) as error:
        raise SettingsError(f"FARM_DATABASE_URL cannot be used: {error}.") from None


def _arguments(url: URL, application: str, options: dict[str, str]) -> dict[str, Any]:
    """Return how to connect: what the URL says of time and options stands, but for what the farm's reading rests on."""
    given = url.query.get("options", ())
    theirs = [given] if isinstance(given, str) else list(given)
    words = [*_words(options), *theirs, *_words(_FORMATS | {_MARK: "kept"})]  # of two the last one counts
    times = {name: value for name, value in ({"connect_timeout": 5} | _KEEPALIVES).items() if name not in url.query}
    return times | {"application_name": application, "client_encoding": "utf8", "options": " ".join(words)}


def _words(options: dict[str, str]) -> list[str]:
    return [f"-c {name}={value}" for name, value in options.items()]


def _refuse_a_pooler(connection: Any, _: object) -> None:  # noqa: ANN401 - psycopg's
    """Close a connection on which our timeouts and formats do not hold. Raises Unavailable."""
    kept = connection.execute(f"SELECT current_setting('{_MARK}', true)").fetchone()
    connection.rollback()
    if kept != ("kept",):
        connection.close()
        raise Unavailable(_AWAY, _POOLER)


def _give_up_a_standby(context: ExceptionContext) -> None:
    """Have the connections to a server that only reads thrown away: the next ones may reach the one that writes."""
    if getattr(context.original_exception, "sqlstate", None) == _READS_ONLY:
        context.is_disconnect = True


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


def repeatable(factory: Sessions) -> Sessions:
    """Return the factory of sessions on the same connections in which all statements see the same moment."""
    return sessions(factory.kw["bind"].execution_options(isolation_level="REPEATABLE READ"))


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
    """Turn what a database raises that is away, or refuses, into Unavailable; that took too long, into TooSlow."""
    try:
        yield
    except DBAPIError as error:
        meant = _meant(error)
        if meant is None:
            raise
        raise meant from error
    except PoolTimeout as error:
        raise Unavailable("Too many transactions at once; try again.") from error


def _meant(error: DBAPIError) -> Unavailable | None:
    match getattr(error.orig, "sqlstate", None):
        case state if state in _TIMEOUTS:
            return TooSlow("The database took too long for this; the farm goes on.")
        case state if state == _READS_ONLY:
            return Unavailable(_ONLY_READS, _STANDBY)
        case state if state == _FORBIDS:
            return Unavailable(_REFUSES, said(error))
    if error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError)):
        return Unavailable(_AWAY, said(error))
    return None


def said(error: DBAPIError) -> str:
    """Return what the server said, in one line: it may name hosts and users, never a password."""
    words = " ".join(str(error.orig).split()).rstrip(".")[:_LONGEST_REASON]
    return _POOLER if "unsupported startup parameter" in words else words


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
    """Return the revision that the database's tables stand at; None: there are none. Raises Unavailable: also where
    nothing can be written.

    Cheap, for readiness checks; `shared.db.migrate.head` is the revision that it should be.
    """

    def revision(session: Session) -> str | None:
        if session.scalar(text("SELECT current_setting('transaction_read_only')")) == "on":
            session.connection().invalidate()
            raise Unavailable(_ONLY_READS, _STANDBY)
        is_there = session.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
        found: str | None = session.scalar(text("SELECT version_num FROM alembic_version")) if is_there else None
        return found

    return transact(factory, revision)
