"""Pools that living workers serve, and those that images wait for in vain."""

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

# All images of a job are of one pool. Indexes: ix_jobs_owner_state_id, uq_images_job_id_index.
_UNSERVED = text("""
    SELECT DISTINCT first.pool
    FROM jobs
    JOIN images AS first ON first.job_id = jobs.id AND first.index = 0
    WHERE jobs.owner = :owner
      AND jobs.state = 'open'
      AND first.pool <> ALL(CAST(:served AS text[]))
""")


def served(session: Session) -> list[str]:
    """Return the pools that living workers serve, drained ones too, by name."""
    return list(session.scalars(_SERVED))


def unserved(session: Session, owner: str, but: Collection[str]) -> set[str]:
    """Return the pools of the owner's open jobs, without those that are served."""
    return set(session.scalars(_UNSERVED, {"owner": owner, "served": list(but)}))
