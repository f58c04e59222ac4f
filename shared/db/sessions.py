"""Sessions: one transaction per use case, opened at the entry point, retried when PostgreSQL asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from shared.errors import SettingsError, TooSlow, Unavailable

T = TypeVar("T")
B_co = TypeVar("B_co", Session, Connection, covariant=True)
Sessions = sessionmaker[Session]

# Deadlock detected, serialization failure, a unique row that another transaction made first: the same transaction
# succeeds the next time, or sees why it cannot.
_RETRY = frozenset({"40P01", "40001", "23505"})
_TRIES = 5
# The time limit of a statement or of a lock: the server is well.
_TIMEOUTS = frozenset({"57014", "55P03"})
_READS_ONLY = "25006"
_FORBIDS = "42501"
# Over TCP a silent server is given up after 5 + 3 * 2 s of waiting, and after 10 s if it acknowledges nothing.
_KEEPALIVES = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
# A server or its database may have other defaults, with which results would mean something else.
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
_MARK = "stepfarm.options"  # set with the other options: a connection without it has lost them all
_LONGEST_REASON = 400  # characters
_TRUSTED_SECONDS = 1.0  # a connection that was used this recently is used again without a ping, which is a round trip
_AWAY = "The database does not answer; the farm goes on when it is back."
_ONLY_READS = "The database takes no changes now; the farm goes on when it does again."
_STANDBY = "the server only reads, as a standby does: name the one that writes in FARM_DATABASE_URL"
_REFUSES = "The database refuses the farm a permission; the farm goes on when it has it again."
_POOLER = (
    "the options of the connection do not reach PostgreSQL: a pooler such as PgBouncer stands between. "
    "Name PostgreSQL itself in FARM_DATABASE_URL; the farm pools its connections by itself"
)


def connect(
    url: str,
    *,
    pool_size: int = 10,
    max_connections: int | None = None,
    application: str = "stepfarm",
    plans_once: bool = False,
) -> Engine:
    """Return an engine whose connections are checked after a pause and give up on a silent server in seconds.

    It keeps up to `pool_size` connections open, and has up to `max_connections` at a time: twice as many if not given.
    With `plans_once` a repeated statement runs by one plan for all parameters, although PostgreSQL would plan it each
    time: planning is half the cost of a claim and a finish. Only for callers of few statements that each have an index,
    because a plan that was made while the tables were empty must not scan them when they are full.
    """
    options = _LIMITS | _ONE_PLAN if plans_once else _LIMITS
    overflow = pool_size if max_connections is None else max_connections - pool_size
    engine = _engine(url, application, options, pool_size=pool_size, max_overflow=overflow, pool_timeout=5)
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
    """Return the arguments of a connection: the URL wins over the farm's limits, but not over its formats."""
    given = url.query.get("options", ())
    theirs = [given] if isinstance(given, str) else list(given)
    words = [*_words(options), *theirs, *_words(_FORMATS | {_MARK: "kept"})]  # of two the last one counts
    times = {name: value for name, value in ({"connect_timeout": 5} | _KEEPALIVES).items() if name not in url.query}
    return times | {"application_name": application, "client_encoding": "utf8", "options": " ".join(words)}


def _words(options: dict[str, str]) -> list[str]:
    return [f"-c {name}={value}" for name, value in options.items()]


def _refuse_a_pooler(connection: Any, _: object) -> None:  # noqa: ANN401 - psycopg's
    """Close a connection that has lost the farm's timeouts and formats. Raises Unavailable."""
    found = connection.execute(f"SELECT current_setting('{_MARK}', true)").fetchone()
    connection.rollback()
    if found != ("kept",):
        connection.close()
        raise Unavailable(_AWAY, _POOLER)


def _give_up_a_standby(context: ExceptionContext) -> None:
    """Drop the connections to a server that only reads, because new ones may reach the server that writes."""
    if getattr(context.original_exception, "sqlstate", None) == _READS_ONLY:
        context.is_disconnect = True


def _check_after_a_pause(engine: Engine) -> None:
    """Ping connections before their first use after a pause; if one is broken, all are opened again."""

    @event.listens_for(engine, "checkin")
    def checked_in(_: object, record: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def checked_out(connection: Any, record: Any, _: object) -> None:  # noqa: ANN401 - SQLAlchemy's
        idle_since = record.info.pop("idle_since", None)
        if idle_since is None or time.monotonic() - idle_since < _TRUSTED_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error


def sessions(engine: Engine) -> Sessions:
    """Return a factory of sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def autocommit(factory: Sessions) -> Sessions:
    """Return a factory of sessions on the same connections in which each statement is its own transaction.

    It takes one round trip, not the three of BEGIN, statement and COMMIT.
    """
    return sessions(factory.kw["bind"].execution_options(isolation_level="AUTOCOMMIT"))


def repeatable(factory: Sessions) -> Sessions:
    """Return a factory of sessions on the same connections in which all statements see the same moment."""
    return sessions(factory.kw["bind"].execution_options(isolation_level="REPEATABLE READ"))


class Begins(Protocol[B_co]):
    """Begins transactions: a factory of sessions, or an engine, whose connections are quicker to begin."""

    def begin(self) -> AbstractContextManager[B_co]: ...


def transact(factory: Begins[B_co], operation: Callable[[B_co], T]) -> T:
    """Run `operation` in one transaction and return what it returns.

    Runs it again after a deadlock, a serialization failure, a lost race for a unique row, and once if the connection
    broke before the commit, because the database may have been restarted. Raises Unavailable if the database is away:
    it is then unknown whether the transaction was committed if the connection broke during the commit, or during any
    statement of an `autocommit` session, so `operation` must be safe to repeat.
    """
    with answered():
        return _transact(factory, operation)


@contextmanager
def answered() -> Iterator[None]:
    """Raise Unavailable instead of the errors of a database that is away or refuses, and TooSlow for time limits."""
    try:
        yield
    except DBAPIError as error:
        meant = _meant(error)
        if meant is None:
            raise
        raise meant from error
    except PoolTimeout as error:
        raise Unavailable("Too many transactions at once: try again.") from error


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
    """Return the words of the server in one line; they may name hosts and users, never a password."""
    words = " ".join(str(error.orig).split()).rstrip(".")[:_LONGEST_REASON]
    return _POOLER if "unsupported startup parameter" in words else words


def _transact(factory: Begins[B_co], operation: Callable[[B_co], T]) -> T:
    has_broken = False
    for attempt in range(1, _TRIES + 1):
        is_commit = False
        try:
            with factory.begin() as begun:
                answer = operation(begun)
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
    """Return the revision of the database's tables; None if there are none. Cheap, for readiness checks.

    Raises Unavailable, also if nothing can be written.
    """

    def revision(session: Session) -> str | None:
        if session.scalar(text("SELECT current_setting('transaction_read_only')")) == "on":
            session.connection().invalidate()
            raise Unavailable(_ONLY_READS, _STANDBY)
        is_there = session.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
        found: str | None = session.scalar(text("SELECT version_num FROM alembic_version")) if is_there else None
        return found

    return transact(factory, revision)
