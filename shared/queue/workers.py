"""A worker's life: one row for each start of a process, one lease, one heartbeat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from heapq import nlargest
from types import MappingProxyType
from typing import Final

from sqlalchemy import BigInteger, String, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from shared.db.states import WorkerState
from shared.db.storable import storable
from shared.models.memory import Precision
from shared.queue.history import Event
from shared.queue.reaper import leave

__all__ = ["Heartbeat", "ResidentModel", "heartbeat", "leave", "register", "resident_models"]
MOST_MODELS: Final = 64  # that a worker says, the largest ones


@dataclass(frozen=True)
class Heartbeat:
    """How what a worker runs differs from what SQL says that it runs."""

    drop: tuple[int, ...]  # image ids that run here but are not (any more) this worker's: close these runs
    missing: dict[int, int]  # image id -> attempt of what is this worker's but does not run here
    drained: str | None = None  # why it is to take nothing new, for people; None: it may


@dataclass(frozen=True)
class ResidentModel:
    """A model in a worker's memory."""

    kind: str  # shared.models.kinds.Kind; or merged: a checkpoint with adapters merged into it
    sha256: str  # of its file; of a merged one, of the checkpoint's
    bytes: int  # with networks that other models share


def resident_models(stored: object) -> Iterator[ResidentModel]:
    """Yield the models that a worker's row names, without those that only a newer version understands."""
    for one in stored if isinstance(stored, list) else ():
        known = one if isinstance(one, dict) else {}
        kind, sha256, size = (known.get(name) for name in ("kind", "sha256", "bytes"))
        if isinstance(kind, str) and isinstance(sha256, str) and isinstance(size, int):
            yield ResidentModel(kind, sha256, size)


_REGISTER = text("""
    WITH made AS (
        INSERT INTO workers (name, host, pid, card, card_name, pool, slots, state, phase, resident, unread, lease_until)
        VALUES (
            :name, :host, :pid, :card, :card_name, :pool, :slots, :state, '', '[]', '{}',
            clock_timestamp() + make_interval(secs => :lease_seconds)
        )
        RETURNING id, name
    ),
    lines AS (
        INSERT INTO history (event, worker, detail)
        SELECT :event, name, :card_name FROM made
    )
    SELECT id FROM made
""")


def register(  # noqa: PLR0913 - what a worker says about itself
    session: Session,
    *,
    name: str,
    host: str,
    pid: int,
    card: str,
    card_name: str,
    pool: str,
    slots: int,
    lease_seconds: float,
) -> int:
    """Record the start of a worker process and return its id: before torch is imported, so that it is seen starting."""
    worker_id: int = session.execute(
        _REGISTER,
        {
            "name": name,
            "host": host,
            "pid": pid,
            "card": card,
            "card_name": card_name,
            "pool": pool,
            "slots": slots,
            "state": WorkerState.STARTING,
            "lease_seconds": lease_seconds,
            "event": Event.REGISTERED,
        },
    ).scalar_one()
    return worker_id


# One row is written; what SQL says that the worker runs comes back with it. Index: ix_images_running.
_HEARTBEAT = text("""
    WITH renewed AS (
        UPDATE workers
        SET beat_at = clock_timestamp(),
            lease_until = clock_timestamp() + make_interval(secs => :lease_seconds),
            state = CASE
                WHEN :state = 'ready' AND EXISTS (SELECT FROM drains WHERE drains.worker = workers.name) THEN 'drained'
                ELSE :state
            END,
            phase = :phase,
            resident = :resident,
            models = :models,
            load_seconds = :load_seconds,
            slots = coalesce(:slots, slots),
            memory_bytes = coalesce(:memory_bytes, memory_bytes),
            precision = coalesce(:precision, precision),
            unread = :unread,
            broken_calls = :broken_calls,
            trouble = :trouble
        WHERE id = :worker_id
        RETURNING id, name
    )
    SELECT images.id, images.attempt, drains.reason
    FROM renewed
    LEFT JOIN drains ON drains.worker = renewed.name
    LEFT JOIN images ON images.worker_id = renewed.id
""").bindparams(
    bindparam("resident", type_=JSONB),
    bindparam("models", type_=JSONB),
    bindparam("unread", type_=JSONB),
    bindparam("broken_calls", type_=JSONB),
    bindparam("slots", type_=BigInteger),
    bindparam("memory_bytes", type_=BigInteger),
    bindparam("precision", type_=String),
)


def heartbeat(  # noqa: PLR0913 - what a worker says about itself
    session: Session,
    worker_id: int,
    *,
    running: Mapping[int, int],
    state: WorkerState,
    phase: str,
    resident: list[str],
    load_seconds: float | None,
    lease_seconds: float,
    slots: int | None = None,
    memory_bytes: int | None = None,
    precision: Precision | None = None,
    unread: Mapping[int, str] = MappingProxyType({}),
    broken_calls: Mapping[str, int] = MappingProxyType({}),
    trouble: str | None = None,
    models: Iterable[ResidentModel] = (),
) -> Heartbeat | None:
    """Renew the lease, say how the worker is, and compare what it runs (image id -> attempt) with SQL.

    `slots`, `memory_bytes` and `precision` are known once the card is up; None: as before. `unread` are the jobs that
    it leaves to workers of a newer version, with what it does not know of each; `broken_calls` counts the calls of
    networks that failed since its start, by cause; people read `trouble`, what is wrong with it, and `models`, what is
    in its memory.

    Returns None if the worker was declared dead: all its images belong to others now. An image that is `missing` in one
    heartbeat may be a claim on its way; if it stays so until the next it is lost here, and the worker hands it back.
    """
    rows = session.execute(
        _HEARTBEAT,
        {
            "worker_id": worker_id,
            "state": state,
            "phase": storable(phase),
            "resident": resident,
            "models": [asdict(one) for one in nlargest(MOST_MODELS, models, key=lambda one: one.bytes)],
            "load_seconds": load_seconds,
            "lease_seconds": lease_seconds,
            "slots": slots,
            "memory_bytes": memory_bytes,
            "precision": precision,
            "unread": {str(job_id): what for job_id, what in unread.items()},
            "broken_calls": dict(broken_calls),
            "trouble": storable(trouble) if trouble else None,
        },
    ).all()
    if not rows:
        return None
    recorded = {image_id: attempt for image_id, attempt, _ in rows if image_id is not None}
    return Heartbeat(
        drop=tuple(image_id for image_id, attempt in running.items() if recorded.get(image_id) != attempt),
        missing={image_id: attempt for image_id, attempt in recorded.items() if running.get(image_id) != attempt},
        drained=rows[0].reason,
    )
