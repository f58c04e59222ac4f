"""Bodies of the farm's queue: jobs of everybody, without what they render."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from api.schemas.jobs import DisplayState
from shared.queue.queries import JobView, Page


class QueuedJobBody(BaseModel):
    """A job as operators may see it: whose it is and where it stands, without its pictures."""

    id: int
    owner: str
    state: DisplayState
    counts: dict[str, int] = Field(description="Images by their states.")
    pool: str
    priority: int
    urgent: bool
    position: int | None = Field(description="Images of its owner before its first queued one.")
    created_at: datetime
    started_at: datetime | None
    expires_at: datetime | None
    width: int
    height: int
    steps: int

    @classmethod
    def of(cls, view: JobView) -> Self:
        """Return the body of a job: what is not named here does not come with it."""
        return cls(
            id=view.id,
            owner=view.owner,
            state=view.state.value,
            counts={state.value: images for state, images in view.counts.items()},
            pool=view.pool,
            priority=view.priority,
            urgent=view.urgent,
            position=view.position,
            created_at=view.created_at,
            started_at=view.started_at,
            expires_at=view.expires_at,
            width=view.params.width,
            height=view.params.height,
            steps=view.params.steps,
        )


class QueueBody(BaseModel):
    """A page of the farm's queue, the latest jobs first."""

    jobs: list[QueuedJobBody]
    next: int | None = Field(description="`cursor` of the next page; null on the last.")

    @classmethod
    def of(cls, page: Page) -> Self:
        """Return the body of a page."""
        return cls(jobs=[QueuedJobBody.of(view) for view in page.jobs], next=page.next)


class QueueChangeBody(BaseModel):
    """What a change did to a job."""

    images: int = Field(description="How many images it changed.")
    job: QueuedJobBody
