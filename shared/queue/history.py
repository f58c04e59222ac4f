"""The history: a line for each event, for people and as proof. Each transition writes its lines in its statement."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session


class Event(StrEnum):
    """What can happen to an image, a job or a worker."""

    SUBMITTED = "submitted"
    CLAIMED = "claimed"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    HELD = "held"  # by hand after it was submitted
    CHANGED = "changed"  # its job's scheduling, by hand
    RELEASED = "released"  # by hand, or because it was due
    HANDED_BACK = "handed back"  # by a worker that lives on
    GIVEN_BACK = "given back"  # because its worker was declared dead, or has left
    DELETED = "deleted"
    REGISTERED = "registered"
    LEFT = "left"
    MARKED_DEAD = "buried"  # older versions read and write this word
    DRAINED = "drained"  # by hand, or by itself: sick
    RESUMED = "resumed"


def with_history(move: str, answer: str) -> TextClause:
    """Return a statement of the parts `move`, the last of which is `moved`, that writes a line for each image moved."""
    return text(f"""
        WITH {move.strip()},
        lines AS (
            INSERT INTO history (event, job_id, image_id, attempt, worker, detail)
            SELECT :event, job_id, id, attempt, worker, :detail FROM moved
        )
        {answer.strip()}
    """)  # noqa: S608 - both are constants of the modules beside this one


# Index: job_id, id.
_FAILED_ATTEMPTS = text("""
    SELECT count(*)
    FROM history
    JOIN images ON images.id = history.image_id
    WHERE history.job_id = :job_id
      AND image_id = :image_id
      AND event = :event
      AND detail IS NOT NULL
      -- Since it was submitted, or since somebody asked for another try.
      AND at >= queued_at
""")


def failed_attempts(session: Session, job_id: int, image_id: int) -> int:
    """Return how often an image was handed back because it failed itself, since it was queued."""
    answer: int = session.execute(
        _FAILED_ATTEMPTS, {"job_id": job_id, "image_id": image_id, "event": Event.HANDED_BACK}
    ).scalar_one()
    return answer


@dataclass(frozen=True)
class Deaths:
    """How often one worker has died in the last hour, and of what; one in a crash loop mostly has no row."""

    name: str
    times: int
    reason: str  # of the latest, for people
    at: datetime  # of the latest


_DEATHS = text("""
    SELECT worker AS name,
           count(*) AS times,
           (array_agg(coalesce(detail, '') ORDER BY id DESC))[1] AS reason,
           max(at) AS at
    FROM history
    -- Bounded, however long the history is. Index: the primary key.
    WHERE id > (SELECT max(id) FROM history) - :latest
      AND event = :event
      AND worker IS NOT NULL
      AND at > clock_timestamp() - interval '1 hour'
    GROUP BY worker
    ORDER BY at DESC
    LIMIT 20
""")
_LATEST = 20_000


def recent_deaths(session: Session) -> list[Deaths]:
    """Return the workers that have died in the last hour, the latest first."""
    rows = session.execute(_DEATHS, {"latest": _LATEST, "event": Event.MARKED_DEAD}).mappings()
    return [Deaths(**row) for row in rows]
