"""What each owner's images take of the farm: finished images, seconds of cards and bytes, by checkpoint and day.

The statement that ends an attempt writes down what it took (`WRITE_USAGE`), so that nothing is lost or counted twice
if a process is killed. That row is added to its day's by a chore (`fold`); readers take both.

An attempt that came to nothing took its card's time nevertheless. Images that run side by side share that time. A
worker says how many seconds an attempt took (`worker.dispatch.card_shares`), and those never add up to more than have
passed. Of an attempt that is cancelled or dies with its worker they are an estimate: the images that run on the worker
at that moment share the time since the claim, also that in which others ran beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from shared.accounts.scope import OWNED, Scope
from shared.db.tables import ModelFile
from shared.errors import FieldError, Refused

CARD_SHARE_UNTIL: Final = """
    greatest(0, extract(epoch FROM {end} - images.started_at))::float8
    / greatest(1, (SELECT count(*) FROM images AS beside WHERE beside.worker_id = images.worker_id))
"""
"""The seconds that an image which runs has taken of its card by `end`. Index: ix_images_running."""
CARD_SHARE: Final = CARD_SHARE_UNTIL.format(end="clock_timestamp()")
WRITE_USAGE: Final = """
    used AS (
        INSERT INTO usage_attempts (at, owner, checkpoint, images, gpu_seconds, bytes)
        SELECT clock_timestamp(), owner, checkpoint, count(bytes), sum(gpu_seconds), coalesce(sum(bytes), 0)
        FROM moved
        WHERE gpu_seconds IS NOT NULL  -- else it did not run
        GROUP BY owner, checkpoint
    )
"""
"""The part of a statement that writes down what the attempts took that its part `moved` has ended: with `bytes` those
that have a picture."""


@dataclass(frozen=True)
class Day:
    """What an owner's images with one checkpoint took on one day."""

    day: date  # in UTC
    owner: str
    checkpoint: str  # SHA-256; of a job without one that of its upscaler, or `none`
    images: int
    gpu_seconds: float
    bytes: int


# A statement that reads both sees what the chore moves in one place of the two.
TAKEN: Final = """
    SELECT day, owner, checkpoint, images, gpu_seconds, bytes FROM usage_days
    UNION ALL
    SELECT (at AT TIME ZONE 'UTC')::date, owner, checkpoint, images, gpu_seconds, bytes FROM usage_attempts
"""
"""A query of everything that was taken, up to the latest commit. Indexes: pk_usage_days, ix_usage_attempts_owner."""

# Rows that are locked are being folded by another process. No two of these wait for each other: days have one order.
_FOLD = text("""
    WITH taken AS (
        SELECT id
        FROM usage_attempts
        ORDER BY id
        LIMIT :batch
        FOR UPDATE SKIP LOCKED
    ),
    gone AS (
        DELETE FROM usage_attempts
        USING taken
        WHERE usage_attempts.id = taken.id
        RETURNING owner, checkpoint, (at AT TIME ZONE 'UTC')::date AS day, images, gpu_seconds, bytes
    ),
    added AS (
        INSERT INTO usage_days AS known (owner, day, checkpoint, images, gpu_seconds, bytes)
        SELECT owner, day, checkpoint, sum(images), sum(gpu_seconds), sum(bytes)
        FROM gone
        GROUP BY owner, day, checkpoint
        ORDER BY owner, day, checkpoint
        ON CONFLICT (owner, day, checkpoint) DO UPDATE
        SET images = known.images + excluded.images,
            gpu_seconds = known.gpu_seconds + excluded.gpu_seconds,
            bytes = known.bytes + excluded.bytes
    )
    SELECT count(*) FROM gone
""")
BATCH: Final = 5000
_DAYS: Final = text(f"""
    SELECT day, owner, checkpoint, sum(images)::bigint AS images, sum(gpu_seconds) AS gpu_seconds,
           sum(bytes)::bigint AS bytes
    FROM ({TAKEN}) AS taken
    WHERE {OWNED}
      AND day BETWEEN :first AND :last
    GROUP BY day, owner, checkpoint
    ORDER BY day DESC, owner, checkpoint
    LIMIT :most
""")  # noqa: S608 - a constant
MOST_DAYS: Final = 400  # of one question
MOST_LINES: Final = 20_000


def days(session: Session, whose: Scope, first: date, last: date) -> list[Day]:
    """Return what was taken from one day to another, the latest first.

    Raises Refused for days that are in the wrong order or too many, and for more lines than one answer holds.
    """
    if not 0 <= (last - first).days < MOST_DAYS:
        accepted = f"a day before `to` or the same, at most {MOST_DAYS} days in all"
        raise Refused("These days cannot be counted.", (FieldError("from", "does not go with `to`", accepted),))
    asked = {"whose": whose.owner, "first": first, "last": last, "most": MOST_LINES + 1}
    found = [Day(**row) for row in session.execute(_DAYS, asked).mappings()]
    if len(found) > MOST_LINES:
        problem = FieldError("from", f"leads to more than {MOST_LINES:,} lines", "fewer days, or one owner")
        raise Refused("That is too much for one answer.", (problem,))
    return found


def names(session: Session, checkpoints: Iterable[str]) -> dict[str, str]:
    """Return the names of model files that the farm knows, by their SHA-256."""
    known = select(ModelFile.sha256, ModelFile.name).where(ModelFile.sha256.in_({*checkpoints}))
    return {sha256: name for sha256, name in session.execute(known.order_by(ModelFile.path.desc())) if sha256}


def fold(session: Session) -> int:
    """Add what ended attempts took to their days, at most `BATCH` of them; return how many."""
    return int(session.execute(_FOLD, {"batch": BATCH}).scalar_one())
