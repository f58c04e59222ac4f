"""The claim: one statement with an index probe on each lane that the policy chose. It never touches the job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError
from sqlalchemy import RowMapping, text
from sqlalchemy.orm import Session

from shared.errors import NotUnderstood
from shared.jobs import stored
from shared.models.memory import Footprint
from shared.models.model_set import ModelSet
from shared.params.render import RenderParams
from shared.queue.history import Event, with_history
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
    stored: dict[str, Any] = field(repr=False, hash=False)  # the parameters of the job, as its row has them
    worker_id: int
    stored_models: dict[str, Any] | None = field(default=None, repr=False, hash=False)  # its model set, likewise
    changes: dict[str, Any] | None = field(default=None, repr=False, hash=False)  # of an image of a sweep, as its row
    memory_class: int = 0
    companions: str = ""  # ModelSet.companions; empty where its job names no models
    is_urgent: bool = False
    transaction: int = 0  # that made it, by PostgreSQL's number: so that others know whether a snapshot saw it

    @property
    def footprint(self) -> Footprint:
        """What its lane's images need memory for."""
        return Footprint(self.checkpoint, self.companions, self.memory_class)

    @cached_property
    def params(self) -> RenderParams:
        """The parameters of this image alone. Raises NotUnderstood."""
        params, unknown = stored.image(self.stored, self.index, self.changes)
        if unknown:
            names = stored.names(unknown)
            raise NotUnderstood(f"job {self.job_id} is from a newer version of the farm: {names}", names)
        return params

    @cached_property
    def models(self) -> ModelSet | None:
        """The model files of the image; None: an older version admitted its job. Raises NotUnderstood."""
        if self.stored_models is None:
            return None
        try:
            return ModelSet.from_stored(self.stored_models)
        except ValidationError as error:
            names = ", ".join(sorted({str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}))
            what = f"its model files ({names})"
            raise NotUnderstood(f"job {self.job_id} is from a newer version of the farm: {what}", what) from error


# The worker's row comes before its images: its claims run one at a time, and none runs after the worker was declared
# dead. What a claim read before it waited for that row may be old: if it would take a second image that a worker died
# of, ix_images_struck ends it, and it runs again.
#
# Index: ix_images_lane_companions, in its own order, so the heads are the first rows that nobody else is claiming.
_CLAIM = with_history(
    """
    me AS MATERIALIZED (
        SELECT id, name
        FROM workers
        WHERE id = :worker_id
          AND state <> 'drained'
          -- Also before its first heartbeat: a drain outlives restarts.
          AND NOT EXISTS (SELECT FROM drains WHERE drains.worker = workers.name)
        FOR NO KEY UPDATE
    ),
    lane AS (
        SELECT *
        FROM unnest(
            CAST(:owners AS text[]), CAST(:checkpoints AS text[]), CAST(:pools AS text[]),
            CAST(:memory_classes AS integer[]), CAST(:companions AS text[]), CAST(:urgents AS boolean[]),
            CAST(:counts AS bigint[])
        ) AS lane (owner, checkpoint, pool, memory_class, companions, urgent, images)
    ),
    heads AS (
        SELECT head.id, head.strikes
        FROM me
        CROSS JOIN lane
        CROSS JOIN LATERAL (
            SELECT id, strikes
            FROM images
            WHERE state = 'queued'
              AND images.owner = lane.owner
              AND images.checkpoint = lane.checkpoint
              AND images.pool = lane.pool
              AND images.memory_class = lane.memory_class
              AND images.companions = lane.companions
              -- A lane that is first because its head is urgent gives its urgent images, and no others.
              AND images.urgent >= lane.urgent
              AND images.job_id <> ALL(CAST(:but AS bigint[]))
              AND (
                  strikes = 0
                  OR NOT EXISTS (SELECT FROM images AS mine WHERE mine.worker_id = me.id AND mine.strikes > 0)
              )
              -- Not past its deadline, cancelled yet or not; an image that started in time may start again.
              AND (expires_at IS NULL OR expires_at > clock_timestamp() OR started_at >= queued_at)
            ORDER BY urgent DESC, priority DESC, id
            LIMIT lane.images
            FOR UPDATE SKIP LOCKED
        ) AS head
    ),
    moved AS (
        UPDATE images
        SET state = 'running',
            attempt = attempt + 1,
            worker_id = :worker_id,
            worker = (SELECT name FROM me),
            started_at = clock_timestamp()
        -- One image at a time that a worker died of, so that the next crash names the culprit and spares the others.
        -- An array, not a join: no plan comes to read the table whole.
        WHERE id = ANY (ARRAY(
            SELECT id FROM heads WHERE strikes = 0 OR id = (SELECT min(id) FROM heads WHERE strikes > 0)
        ))
        RETURNING id, job_id, index, attempt, owner, checkpoint, memory_class, companions, urgent, cost, worker,
                  changes, models AS own_models
    )
    """,
    """
    SELECT moved.*, job.params, coalesce(moved.own_models, job.models) AS models,
           pg_current_xact_id()::text::bigint AS transaction
    FROM moved
    LEFT JOIN LATERAL (
        SELECT params, models
        FROM jobs
        WHERE jobs.id = moved.job_id
        LIMIT 1  -- keeps this a probe for each image: no plan comes to read the table whole
    ) AS job ON true
    """,
)


# Index: ix_images_lane_companions.
_IS_ANY = text("""
    SELECT EXISTS (
        SELECT
        FROM unnest(
            CAST(:owners AS text[]), CAST(:checkpoints AS text[]), CAST(:pools AS text[]),
            CAST(:memory_classes AS integer[]), CAST(:companions AS text[])
        ) AS lane (owner, checkpoint, pool, memory_class, companions)
        CROSS JOIN LATERAL (
            SELECT
            FROM images
            WHERE state = 'queued'
              AND images.owner = lane.owner
              AND images.checkpoint = lane.checkpoint
              AND images.pool = lane.pool
              AND images.memory_class = lane.memory_class
              AND images.companions = lane.companions
              AND images.job_id <> ALL(CAST(:but AS bigint[]))
            LIMIT 1
        ) AS head
    )
""")


def is_any(session: Session, lanes: Iterable[Lane], but: Collection[int]) -> bool:
    """Return whether an image of a job that is not in `but` waits in any of these lanes."""
    return bool(session.scalar(_IS_ANY, _columns([lane.place for lane in lanes]) | {"but": list(but)}))


def claim(session: Session, me: Worker, lanes: Iterable[Lane], but: Collection[int] = ()) -> list[Claim]:
    """Return claims of one image for each of `lanes`, which may repeat, as far as they have any.

    There are none if `me` was declared dead or is drained, and none of the jobs `but`. It is one statement, so the
    session may be one of `autocommit`.
    """
    images = Counter((*lane.place, lane.urgent) for lane in lanes)
    mine = {"worker_id": me.id, "but": list(but), "event": Event.CLAIMED, "detail": None}
    rows = session.execute(_CLAIM, _columns(images) | {"counts": list(images.values())} | mine).mappings()
    return [_claim(row, me.id) for row in rows]


def _columns(lanes: Iterable[tuple[object, ...]]) -> dict[str, list[object]]:
    """Return the parameters of the statements, a list a column, for places of lanes with or without their urgency."""
    names = ("owners", "checkpoints", "pools", "memory_classes", "companions", "urgents")
    return {name: list(column) for name, column in zip(names, zip(*lanes, strict=True), strict=False)}


def _claim(row: RowMapping, worker_id: int) -> Claim:
    return Claim(
        image_id=row["id"],
        job_id=row["job_id"],
        index=row["index"],
        attempt=row["attempt"],
        owner=row["owner"],
        checkpoint=row["checkpoint"],
        cost=row["cost"],
        stored=row["params"],
        stored_models=row["models"],
        changes=row["changes"],
        memory_class=row["memory_class"],
        companions=row["companions"],
        worker_id=worker_id,
        is_urgent=row["urgent"],
        transaction=row["transaction"],
    )
