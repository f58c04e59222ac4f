"""Drained workers finish what they have and take nothing new until they are resumed.

A drain is stored under the worker's name, so it outlives the worker's restarts. The worker learns of it with its next
heartbeat; its claims find nothing from the commit on.

One transaction at a time changes drains, so that none counts on workers that another is draining. Its lock is taken
first and a worker's row last: it waits for no heartbeat or claim of other workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.states import WorkerState
from shared.db.storable import storable
from shared.errors import NotFound
from shared.queue.history import Event

_LOCK: Final = 0x57E9FA26  # key of the advisory lock; keys of two numbers, as of `locks` and `uploads`, are apart

_TAKE = text("SELECT pg_advisory_xact_lock(:lock)")

_NAMES = text("SELECT name FROM workers UNION SELECT worker FROM drains ORDER BY 1")

_DRAIN = text("""
    WITH changed AS (
        INSERT INTO drains (worker, reason)
        SELECT name, :reason FROM unnest(CAST(:names AS text[])) AS given (name)
        ON CONFLICT (worker) DO UPDATE SET reason = excluded.reason
        RETURNING worker, reason
    )
    INSERT INTO history (event, worker, detail)
    SELECT :event, worker, reason FROM changed
""")

_RESUME = text("""
    WITH changed AS (
        DELETE FROM drains WHERE worker = ANY(:names) RETURNING worker, reason
    )
    INSERT INTO history (event, worker, detail)
    SELECT :event, worker, reason FROM changed
""")

# So that claims and the policy know before the worker's next heartbeat.
_SET_STATE = text("""
    WITH affected AS (
        SELECT id FROM workers WHERE name = ANY(:names) ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE workers SET state = :becomes FROM affected WHERE workers.id = affected.id AND state = :was
""")

_TOO_FEW = text("""
    SELECT served.pool
    FROM workers AS me
    CROSS JOIN LATERAL unnest(string_to_array(me.pool, ',')) AS served (pool)
    JOIN workers ON served.pool = ANY(string_to_array(workers.pool, ','))
    LEFT JOIN drains ON drains.worker = workers.name
    WHERE me.id = :worker_id
      -- One that is drained already takes nothing from its pools.
      AND NOT EXISTS (SELECT FROM drains WHERE drains.worker = me.name)
      -- Other workers that live and are up, drained or not, but not an earlier start of this one.
      AND (
          workers.id = me.id
          OR (
              workers.name <> me.name
              AND workers.state IN ('ready', 'drained')
              AND workers.lease_until > clock_timestamp()
          )
      )
    GROUP BY served.pool
    -- Without it there must be one that takes images, and half of all.
    HAVING count(*) FILTER (WHERE workers.id <> me.id AND workers.state = 'ready' AND drains.worker IS NULL)
           < greatest(1, count(*) / 2.0)
    ORDER BY served.pool
    LIMIT 1
""")

# If a person has drained it, the person's reason stays.
_DRAIN_SICK = text("""
    WITH changed AS (
        INSERT INTO drains (worker, reason)
        SELECT name, :reason FROM workers WHERE id = :worker_id
        ON CONFLICT (worker) DO NOTHING
        RETURNING worker, reason
    ),
    lines AS (
        INSERT INTO history (event, worker, detail)
        SELECT :event, worker, reason FROM changed
    )
    UPDATE workers SET state = 'drained' WHERE id = :worker_id AND state = 'ready'
""")


def matching(session: Session, wanted: str) -> list[str]:
    """Return the names of the workers that `wanted` means, a name or a pattern such as `host/*`.

    Drained workers that are not up now are among them. Raises NotFound, which lists all names.
    """
    known = session.scalars(_NAMES).all()
    names = [name for name in known if name == wanted or fnmatchcase(name, wanted)]
    if not names:
        there = f"There are {', '.join(known)}." if known else "No worker is up."
        raise NotFound(f"There is no worker {wanted!r}. {there}")
    return names


def drain(session: Session, names: Sequence[str], reason: str) -> None:
    """Have these workers take nothing new because a person asks for it; people read `reason`."""
    session.execute(_TAKE, {"lock": _LOCK})
    session.execute(_DRAIN, {"names": list(names), "reason": storable(reason), "event": Event.DRAINED})
    _set_state(session, names, WorkerState.READY, WorkerState.DRAINED)


def drain_sick(session: Session, worker_id: int, reason: str) -> str | None:
    """Have a worker that found itself sick take nothing new, unless one of its pools would lose too many workers.

    Returns that pool, of which fewer than half of the workers, or none, would still take images: nothing has changed.
    None: the worker is drained, for `reason` or for that of a person who drained it before.
    """
    session.execute(_TAKE, {"lock": _LOCK})  # of two at once the second waits, and then counts the first as drained
    pool: str | None = session.scalar(_TOO_FEW, {"worker_id": worker_id})
    if pool is None:
        session.execute(_DRAIN_SICK, {"worker_id": worker_id, "reason": storable(reason), "event": Event.DRAINED})
    return pool


def resume(session: Session, names: Sequence[str]) -> None:
    """Let these workers take images again, whether a person drained them or they did so themselves."""
    session.execute(_TAKE, {"lock": _LOCK})
    session.execute(_RESUME, {"names": list(names), "event": Event.RESUMED})
    _set_state(session, names, WorkerState.DRAINED, WorkerState.READY)


def _set_state(session: Session, names: Sequence[str], was: WorkerState, becomes: WorkerState) -> None:
    session.execute(_SET_STATE, {"names": list(names), "was": was, "becomes": becomes})
