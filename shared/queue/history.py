"""What happened, one line an event: for people, and for proof. Every move writes its lines in its own transaction."""

from __future__ import annotations

from enum import StrEnum


class Event(StrEnum):
    """What can happen to an image, a job or a worker."""

    SUBMITTED = "submitted"
    CLAIMED = "claimed"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    HANDED_BACK = "handed back"  # by a worker that lives on, or has left in order
    GIVEN_BACK = "given back"  # by the burial of its worker
    DELETED = "deleted"
    REGISTERED = "registered"
    LEFT = "left"
    BURIED = "buried"


# The last part of a move's statement: `moved` are the images that it moved. One line each, in the same statement.
NOTED = """
    noted AS (
        INSERT INTO history (event, job_id, image_id, attempt, worker, detail)
        SELECT :event, job_id, id, attempt, worker, :detail FROM moved
    )
"""
