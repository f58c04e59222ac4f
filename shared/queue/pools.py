"""Pools that living workers serve, and pools that jobs wait for without a worker."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import text
from sqlalchemy.orm import Session

_SERVED = text("""
    SELECT DISTINCT served.pool
    FROM workers
    CROSS JOIN LATERAL unnest(string_to_array(workers.pool, ',')) AS served (pool)
    WHERE lease_until > clock_timestamp()
    ORDER BY served.pool
""")

# From the latest job back to one of the pool: who submits thousands to one pool looks at one, to several in turn at as
# many; only a pool that the owner has not named lately is looked for among all. Index: ix_jobs_owner_state_id.
_IS_AWAITED = text("""
    SELECT EXISTS (
        SELECT
        FROM (
            SELECT pool
            FROM jobs
            WHERE owner = :owner
              AND state = 'open'
            ORDER BY id DESC
        ) AS latest
        WHERE latest.pool = :pool
    )
""")

# Index: ix_jobs_owner_state_id.
_UNSERVED = text("""
    SELECT DISTINCT pool
    FROM jobs
    WHERE owner = :owner
      AND state = 'open'
      AND pool <> ALL(CAST(:served AS text[]))
""")


def served(session: Session) -> list[str]:
    """Return the pools that living workers serve, drained workers among them, by name."""
    return list(session.scalars(_SERVED))


def is_awaited(session: Session, owner: str, pool: str) -> bool:
    """True if an open job of the owner is of this pool."""
    return bool(session.scalar(_IS_AWAITED, {"owner": owner, "pool": pool}))


def unserved(session: Session, owner: str, but: Collection[str]) -> set[str]:
    """Return the pools of the owner's open jobs without those in `but`. Reads all those jobs."""
    return set(session.scalars(_UNSERVED, {"owner": owner, "served": list(but)}))
