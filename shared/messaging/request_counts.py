"""Requests of this minute, counted together by all processes of the farm that answer some.

requests:{minute}   hash   whose requests -> how many; the minute is that of Unix time
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from shared.db.farm import FarmId
from shared.errors import Unavailable

_TIMEOUT_SECONDS: Final = 0.2
_KEPT_SECONDS: Final = 150


class RequestCounts:
    """Adds what this process has counted, and knows the sums. For one thread at a time."""

    def __init__(self, redis_url: str, farm_id: FarmId) -> None:
        self._farm_id = farm_id
        self._redis = Redis.from_url(
            redis_url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),  # what is not counted now is added a second later
        )

    def add(self, minute: int, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Add to the counts of a minute and return their sums. Raises Unavailable."""
        key = self._farm_id.key(f"requests:{minute}")
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for whose, number in counts.items():
                    pipeline.hincrby(key, whose, number)
                pipeline.expire(key, _KEPT_SECONDS)
                sums = pipeline.execute()
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not count requests.", str(error)) from error
        return dict(zip(counts, sums, strict=False))
