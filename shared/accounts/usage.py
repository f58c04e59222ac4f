"""What each owner's images take of the farm: finished images, seconds of cards and bytes, by checkpoint and day.

The statement that ends an attempt writes down what it took (`WRITE_USAGE`), so that nothing is lost or counted twice
if a process is killed. That row is added to its day's by a chore (`fold`); readers take both.

An attempt that came to nothing took its card's time nevertheless. Images that run side by side share that time:
together they never take more seconds than have passed. A worker says how many an attempt took
(`worker.dispatch.card_shares`); where it cannot, the images that run on it at that moment share the time since the
claim.
"""

from __future__ import annotations

from datetime import date
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.accounts.principal import Principal
from shared.accounts.scope import OWNED

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


class Used(NamedTuple):
    """The work of images, summed."""

    images: int  # finished
    gpu_seconds: float  # of attempts that came to nothing as well
    bytes: int  # of the pictures


# In one statement, so that it sees what the chore moves in one place of the two. Indexes: pk_usage_days,
# ix_usage_attempts_owner.
_USED = text(f"""
    SELECT coalesce(sum(images), 0)::bigint AS images,
           coalesce(sum(gpu_seconds), 0) AS gpu_seconds,
           coalesce(sum(bytes), 0)::bigint AS bytes
    FROM (
        SELECT images, gpu_seconds, bytes FROM usage_days WHERE {OWNED} AND day >= :since
        UNION ALL
        SELECT images, gpu_seconds, bytes FROM usage_attempts WHERE {OWNED} AND (at AT TIME ZONE 'UTC')::date >= :since
    ) AS taken
""")  # noqa: S608 - a constant

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


def used(session: Session, who: Principal, since: date) -> Used:
    """Return what the images of `who` took since a day in UTC began, up to the latest commit."""
    return Used(*session.execute(_USED, {"whose": who.owner, "since": since}).one())


def fold(session: Session) -> int:
    """Add what ended attempts took to their days, at most `BATCH` of them; return how many."""
    return int(session.execute(_FOLD, {"batch": BATCH}).scalar_one())
