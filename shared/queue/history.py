"""What happened, one line an event: for people, and for proof. Every move writes its lines in its own statement."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import TextClause, text


class Event(StrEnum):
    """What can happen to an image, a job or a worker."""

    SUBMITTED = "submitted"
    CLAIMED = "claimed"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    HANDED_BACK = "handed back"  # by a worker that lives on
    GIVEN_BACK = "given back"  # by the burial of its worker, or when it left
    DELETED = "deleted"
    REGISTERED = "registered"
    LEFT = "left"
    BURIED = "buried"


def noted(move: str, answer: str) -> TextClause:
    """Return the statement of a move: `move` ends in the part `moved`, the images moved, which get a line each."""
    return text(f"""
        WITH {move.strip()},
        noted AS (
            INSERT INTO history (event, job_id, image_id, attempt, worker, detail)
            SELECT :event, job_id, id, attempt, worker, :detail FROM moved
        )
        {answer.strip()}
    """)  # noqa: S608 - both are constants of the modules beside this one
