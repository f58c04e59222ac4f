"""Drained workers finish what they have and take nothing new until they are resumed.

A drain is kept under the worker's name, so it outlives the worker's restarts. The worker hears of it with its next
beat; its claims find nothing from the commit on.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.errors import NotFound
from shared.queue.history import Event, storable
from shared.states import WorkerState

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

# So that claims and the policy know before the worker's next beat. Workers are locked by id, as `reap` does.
_TURN = text("""
    WITH affected AS (
        SELECT id FROM workers WHERE name = ANY(:names) ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE workers SET state = :becomes FROM affected WHERE workers.id = affected.id AND state = :was
""")


def matching(session: Session, wanted: str) -> list[str]:
    """Return the names of the workers that `wanted` means, a name or a pattern such as `host/*`.

    Workers that are drained but not up now are known too. Raises NotFound that lists the names there are.
    """
    known = session.scalars(_NAMES).all()
    names = [name for name in known if name == wanted or fnmatchcase(name, wanted)]
    if not names:
        there = f"There are {', '.join(known)}." if known else "No worker is up."
        raise NotFound(f"There is no worker {wanted!r}. {there}")
    return names


def drain(session: Session, names: Sequence[str], reason: str) -> None:
    """Have these workers take nothing new; `reason` is for people."""
    session.execute(_DRAIN, {"names": list(names), "reason": storable(reason), "event": Event.DRAINED})
    _turn(session, names, WorkerState.READY, WorkerState.DRAINED)


def resume(session: Session, names: Sequence[str]) -> None:
    """Let these workers take images again."""
    session.execute(_RESUME, {"names": list(names), "event": Event.RESUMED})
    _turn(session, names, WorkerState.DRAINED, WorkerState.READY)


def _turn(session: Session, names: Sequence[str], was: WorkerState, becomes: WorkerState) -> None:
    session.execute(_TURN, {"names": list(names), "was": was, "becomes": becomes})
