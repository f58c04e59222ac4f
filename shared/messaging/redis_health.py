"""Whether Redis takes writes: a server that answers may still refuse them, as a replica does."""

from __future__ import annotations

import time
from threading import Lock
from typing import Final

import structlog
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, OutOfMemoryError, ReadOnlyError, RedisError

from shared.db.farm import FarmId
from shared.errors import Unavailable

log = structlog.get_logger(__name__)

_TRUSTED_SECONDS: Final = 2.0  # how long an answer is reused
_KEPT_SECONDS: Final = 60  # by Redis
_THEN: Final = "what runs is finished, what waits starts when"
AWAY: Final = f"Redis does not answer: {_THEN} it is back"


class RedisHealth:
    """Knows why Redis does not work. Threads may share it: one asks Redis, the others get its answer."""

    def __init__(self, redis: Redis, farm_id: FarmId) -> None:
        self._redis = redis
        self._farm_id = farm_id
        self._lock = Lock()
        self._known: str | None = None
        self._until = 0.0  # monotonic

    def trouble(self) -> str | None:
        """Return why nothing new starts, and what would help; None if Redis works. Writes one small key that expires.

        The words of Redis itself go to the log.
        """
        if time.monotonic() < self._until:
            return self._known
        with self._lock:
            if time.monotonic() >= self._until:
                self._known = self._ask()
                self._until = time.monotonic() + _TRUSTED_SECONDS
            return self._known

    def _ask(self) -> str | None:
        try:
            _write(self._redis, self._farm_id)
        except (RedisError, OSError) as error:
            words = _words(error)
            if words != self._known:
                log.warning("Redis takes no writes", reason=str(error) or repr(error))
            return words
        return None


def _words(error: Exception) -> str:
    match error:
        case ReadOnlyError():
            return f"Redis only reads, as a replica does: {_THEN} FARM_REDIS_URL names the one that writes"
        case OutOfMemoryError():
            return f"Redis is full: {_THEN} it has room (its maxmemory)"
        case AuthenticationError() | NoPermissionError():
            return f"Redis refuses the farm's user or password: {_THEN} FARM_REDIS_URL has those that may write"
        case _ if str(error).startswith("MISCONF"):
            return f"Redis cannot save to its disk and takes nothing: {_THEN} it can"
        case _:
            return AWAY


def _write(redis: Redis, farm_id: FarmId) -> None:
    try:
        key = farm_id.key("health")
    except Unavailable:  # the database reports its own trouble
        redis.ping()
    else:
        redis.set(key, b"", ex=_KEPT_SECONDS)
