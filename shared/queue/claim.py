"""The claim: one index probe on the lane that the policy chose. It never touches the job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.params import RenderParams
from shared.queue.history import Event, noted
from shared.queue.policy import Lane, Worker


@dataclass(frozen=True)
class Claim:
    """A worker's right to one image: what a slot carries until it commits. The attempt is the fence."""

    image_id: int
    job_id: int
    index: int
    attempt: int
    owner: str
    checkpoint: str  # SHA-256
    cost: int
    params: RenderParams  # of this image alone
    worker_id: int


# The worker's row comes before its images: its claims go one at a time, and never past its burial.
_ME = text("""
    SELECT name
    FROM workers
    WHERE id = :worker_id
      AND state <> 'drained'
      -- Also before its first beat: a drain outlives restarts.
      AND NOT EXISTS (SELECT FROM drains WHERE drains.worker = workers.name)
    FOR NO KEY UPDATE
""")

# Index: ix_images_lane, in its own order, so the head is the first row that nobody else is claiming.
_PROBE = noted(
    """
    head AS (
        SELECT id
        FROM images
        WHERE state = 'queued'
          AND owner = :owner
          AND checkpoint = :checkpoint
          AND pool = :pool
          AND memory_class = :memory_class
          -- One struck image at a time, so that the next crash names the culprit and its card-mates live.
          AND (
              strikes = 0
              OR NOT EXISTS (SELECT FROM images AS mine WHERE mine.worker_id = :worker_id AND mine.strikes > 0)
          )
          -- Not past its deadline, whether or not it was cancelled yet; what started in time may start again.
          AND (expires_at IS NULL OR expires_at > clock_timestamp() OR started_at >= queued_at)
        ORDER BY urgent DESC, priority DESC, id
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ),
    moved AS (
        UPDATE images
        SET state = 'running',
            attempt = attempt + 1,
            worker_id = :worker_id,
            worker = :worker,
            started_at = clock_timestamp()
        FROM head
        WHERE images.id = head.id
        RETURNING images.id, job_id, index, attempt, owner, checkpoint, cost, worker
    )
    """,
    "SELECT moved.*, jobs.params FROM moved JOIN jobs ON jobs.id = moved.job_id",
)


def claim(session: Session, me: Worker, lanes: Iterable[Lane]) -> Claim | None:
    """Take the first image of the first of `lanes` that has one. None: they are empty by now, or `me` is buried
    or drained.

    Raises pydantic's ValidationError for a job of a younger version of the farm: roll back, others can read it.
    """
    name = session.execute(_ME, {"worker_id": me.id}).scalar_one_or_none()
    if name is None:
        return None
    mine = {"worker_id": me.id, "worker": name, "event": Event.CLAIMED, "detail": None}
    for lane in lanes:
        row = session.execute(_PROBE, asdict(lane) | mine).mappings().one_or_none()
        if row is not None:
            return _claim(dict(row), me.id)
    return None


def _claim(row: dict[str, Any], worker_id: int) -> Claim:
    return Claim(
        image_id=row["id"],
        job_id=row["job_id"],
        index=row["index"],
        attempt=row["attempt"],
        owner=row["owner"],
        checkpoint=row["checkpoint"],
        cost=row["cost"],
        params=RenderParams.from_stored(row["params"]).image(row["index"]),
        worker_id=worker_id,
    )
