"""What `farm doctor` asks of the farm: its servers, its API, its workers and its models."""

from __future__ import annotations

import socket
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from cli.checkpoints import files
from cli.connect import connect
from cli.embedded import home
from cli.findings import Finding, bad, fine, remark
from shared.db import migrate, revisions
from shared.db.farm import farm_id
from shared.db.locks import APPLICATION, IS_ANYBODY
from shared.db.sessions import answered, connect_once, sessions
from shared.errors import CARD_UNUSABLE, StorageAway, Unavailable
from shared.media.ownership import Ownership
from shared.media.storage import Storage
from shared.messaging.redis_health import RedisHealth
from shared.settings import Settings

_NOT_UP: Final = remark("Not up; `farm up` starts it.")
_OLDEST_TRANSACTION_SECONDS: Final = 300
_OLDEST_REDIS: Final = (6, 2)  # takes several entries of a list at once
_EVICTS: Final = "allkeys-"  # what other policies throw away expires by itself, and tickets do not
_SERVER: Final = """
SELECT current_setting('server_version') AS version,
       current_setting('transaction_read_only') = 'on' AS only_reads,
       extract(epoch FROM coalesce(max(clock_timestamp() - xact_start), '0'))::int AS oldest_seconds
FROM pg_stat_activity
WHERE backend_xmin IS NOT NULL
"""
_MEND_STORAGE: Final = "make it writable for this user, or set FARM_STORAGE_URL"
_DOING_CHORES: Final = f"SELECT {IS_ANYBODY} AS is_connected"
_SET_ASIDE: Final = """
SELECT count(*) AS events, count(DISTINCT job_id) AS jobs, max(reason) AS reason
FROM outbox
WHERE dead_at IS NOT NULL
"""
_ALIVE_HERE: Final = """
SELECT count(*),
       string_agg(card || ': ' || trouble, '; ' ORDER BY card) FILTER (
           WHERE state = 'drained' AND starts_with(trouble, :unusable)
       ) AS unusable
FROM workers
WHERE host = :host AND lease_until > clock_timestamp()
"""


def database(settings: Settings) -> Finding:
    """Does PostgreSQL answer, and does no old transaction stop it from vacuuming?"""
    if _is_down(settings, settings.database_url):
        return _NOT_UP
    try:
        server = _ask(settings, _SERVER)
    except (SQLAlchemyError, Unavailable) as error:
        return bad(f"No answer: {_first_line(error)}", "Start PostgreSQL, or correct FARM_DATABASE_URL.")
    if server.only_reads:
        advice = "Set FARM_DATABASE_URL to the server that writes; until then no job is accepted and none starts."
        return bad(f"PostgreSQL {server.version} only reads, as a standby does.", advice)
    if server.oldest_seconds > _OLDEST_TRANSACTION_SECONDS:
        advice = "It slows every claim. End it; take backups with pg_basebackup or from a standby (docs/upgrade.md)."
        return bad(f"A transaction has been open for {server.oldest_seconds} s.", advice)
    return fine(f"PostgreSQL {server.version}")


def migrations(settings: Settings) -> Finding:
    """Are the tables those of this version?"""
    if _is_down(settings, settings.database_url):
        return _NOT_UP
    stands, needed = migrate.current(settings.database), revisions.head()
    if mismatch := revisions.mismatch(stands):
        return bad(mismatch, "farm db upgrade")
    if stands != needed:
        return fine(f"revision {stands} of a newer version; this version ({needed}) can use it")
    return fine(f"revision {stands}")


def redis(settings: Settings) -> Finding:
    """Does Redis answer, and accept writes? Without it jobs are accepted, and wait."""
    if _is_down(settings, settings.redis_url):
        return _NOT_UP
    try:
        with Redis.from_url(settings.redis, socket_timeout=5, socket_connect_timeout=5) as client:
            server, trouble = client.info(), _trouble(client, settings)
    except (RedisError, OSError) as error:
        return bad(f"No answer: {_first_line(error)}", "Start Redis, or correct FARM_REDIS_URL; until then jobs wait.")
    version = server["redis_version"]  # of a Valkey: the Redis that it stands in for
    if tuple(map(int, version.split(".")[:2])) < _OLDEST_REDIS:
        return bad(f"Redis {version} is too old.", "The farm needs Redis {}.{} or later.".format(*_OLDEST_REDIS))
    name = f"Valkey {server['valkey_version']}" if "valkey_version" in server else f"Redis {version}"
    policy = server.get("maxmemory_policy", "")
    if trouble:
        return bad(f"{name}: {trouble}.", "Until then jobs are accepted, and wait.")
    if policy.startswith(_EVICTS):
        advice = (
            "An evicted ticket delays its image by a second; `CONFIG SET maxmemory-policy noeviction` prevents that."
        )
        return remark(f"{name} evicts keys when its memory is full ({policy}).", advice)
    return fine(name)


def _trouble(client: Redis, settings: Settings) -> str | None:
    engine = connect_once(settings.database)
    try:
        return RedisHealth(client, farm_id(sessions(engine))).trouble()
    finally:
        engine.dispose()


def storage(settings: Settings) -> Finding:
    """Is it this farm's storage, and can pictures be stored? Writes a test file, so only if FARM_HOME exists."""
    if not settings.storage_url and not settings.home.exists():
        return _NOT_UP
    try:
        _storage(settings).check()
    except StorageAway as error:
        advice = f"{error.advice or _MEND_STORAGE}. Until then pictures wait; none is lost."
        return bad(_capital(f"{error.words} ({settings.storage})."), _capital(advice))
    return fine(settings.storage)


def _storage(settings: Settings) -> Storage:
    """Return the storage as the farm sees it; with a database that is not up, or away, as it is."""
    if _is_down(settings, settings.database_url):
        return Storage(settings.storage)
    factory = sessions(connect_once(settings.database))
    ours = farm_id(factory)
    try:
        return Storage(settings.storage, Ownership(factory, ours) if ours.value else None)
    except Unavailable:
        return Storage(settings.storage)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def api(settings: Settings) -> Finding:
    """Does the API answer, and accept the key?"""
    if not settings.url and not home.running(settings.home):
        return _NOT_UP
    with connect(settings) as client:
        client.jobs(limit=1)
        return fine(client.url)


def workers(settings: Settings) -> Finding:
    """Are there workers of this machine that have renewed their lease, and can they use their cards?"""
    if _is_down(settings, settings.database_url):
        return _NOT_UP
    try:
        alive, unusable = _ask(settings, _ALIVE_HERE, host=socket.gethostname(), unusable=CARD_UNUSABLE)
    except (SQLAlchemyError, Unavailable) as error:
        return bad(f"No answer: {_first_line(error)}", "See the check of the database.")
    if unusable:
        advice = "Each is tried again every two minutes; docs/troubleshooting.md lists the causes."
        return bad(f"{alive} on this machine, and not all take pictures: {unusable}.", advice)
    if alive:
        return fine(f"{alive} on this machine")
    return bad("None on this machine.", "`farm logs workers` may say why; `farm worker --gpus all` starts them.")


def chores(settings: Settings) -> Finding:
    """Does a process of the farm do its chores?"""
    if _is_down(settings, settings.database_url):
        return _NOT_UP
    try:
        is_connected = _ask(settings, _DOING_CHORES, application=APPLICATION).is_connected
    except (SQLAlchemyError, Unavailable) as error:
        return bad(f"No answer: {_first_line(error)}", "See the check of the database.")
    if is_connected:
        return fine("Up to date.")
    advice = "`farm logs chores` may say why; `farm chores` starts it. Until then nothing is cleaned up."
    return bad("No process does them.", advice)


def events(settings: Settings) -> Finding:
    """Was all that follows from the ends of jobs done, or was something given up?"""
    if _is_down(settings, settings.database_url):
        return _NOT_UP
    try:
        found = _ask(settings, _SET_ASIDE)
    except (SQLAlchemyError, Unavailable) as error:
        return bad(f"No answer: {_first_line(error)}", "See the check of the database.")
    if not found.events:
        return fine("None was given up.")
    advice = "`farm logs chores` says more. Mend the cause, then `farm db redeliver` has all of them tried again."
    missing = "so contact sheets, webhooks and jobs that wait for them may be missing"
    what = f"{found.events} ends of {found.jobs} jobs were given up after a day, {missing}"
    return bad(f"{what}: {found.reason}.", advice)


def models(settings: Settings) -> Finding:
    """Is there a checkpoint that can be used, and which cannot?"""
    if not settings.url and not home.running(settings.home):
        if missing := [str(folder) for folder in settings.models.paths if not folder.is_dir()]:
            advice = "Create it and put checkpoints into it, or set FARM_MODELS."
            return bad(f"There is no folder {' nor '.join(missing)}.", advice)
        return remark(f"{len(files(settings.models))} model files in {settings.models}; a running farm can say more.")
    with connect(settings) as client:
        known = client.catalogue("checkpoints")["checkpoints"]
    usable = [one["name"] for one in known if one["usable"]]
    broken = [f"{one['name']}: {one['reason']}" for one in known if not one["usable"]]
    if not usable:
        return bad(
            "No checkpoint can be used. " + " ".join(broken), "Put one into the farm's models folder (FARM_MODELS)."
        )
    return remark("; ".join(broken), "Those files cannot be used.") if broken else fine(", ".join(usable))


def _is_down(settings: Settings, url: str) -> bool:
    """True if the server is an embedded one of FARM_HOME, and the farm is not running."""
    return not url and not home.running(settings.home)


def _ask(settings: Settings, question: str, **values: object) -> Any:  # noqa: ANN401 - a row
    with answered(), connect_once(settings.database).connect() as connection:
        return connection.execute(text(question), values).one()


def _first_line(error: Exception) -> str:
    if isinstance(error, Unavailable):
        return error.reason or str(error)
    return (str(error).splitlines() or [type(error).__name__])[0]
