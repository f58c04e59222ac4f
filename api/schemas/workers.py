"""Workers and the chores of a farm, as the API shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from shared.db.locks import Standing
from shared.db.states import WorkerState
from shared.queue.history import Deaths
from shared.queue.queries import WorkerView


class WorkerBody(BaseModel):
    """One worker: one start of one process, on one card."""

    id: int
    name: str
    host: str
    card: str
    card_name: str
    pool: str
    slots: int = Field(description="Images that it can hold at once.")
    running: int = Field(description="Images that it carries now.")
    state: WorkerState
    phase: str = Field(description="What it is doing, for people.")
    resident: list[str] = Field(description="SHA-256 of the checkpoints in its memory.")
    load_seconds: float | None = Field(description="Seconds that its latest checkpoint took to load from its file.")
    started_at: datetime
    beat_at: datetime
    is_late: bool = Field(description="Whether it is silent past its lease: its images will go to others.")
    drained: str | None = Field(description="Why it takes no images until it is resumed; null if it takes images.")
    trouble: str | None = Field(
        description="A fault, such as why its card cannot be used; null if none is known. With the state `drained` it "
        "takes no images until the fault is mended; with another state it goes on."
    )


class EndedBody(BaseModel):
    """A worker that died in the last hour; it may run again."""

    name: str
    times: int = Field(description="Number of deaths.")
    reason: str = Field(description="Cause of the last death, and when the worker starts again.")
    at: datetime = Field(description="Time of the last death.")


class WorkersBody(BaseModel):
    """The living workers, and those that died lately."""

    workers: list[WorkerBody]
    ended: list[EndedBody] = Field(default=[], description="Workers that died in the last hour, the latest first.")

    @classmethod
    def from_views(cls, views: Iterable[WorkerView], ended: Iterable[Deaths] = ()) -> Self:
        """Return the body of the workers."""
        shown = WorkerBody.model_fields
        return cls(
            workers=[WorkerBody(**{name: getattr(view, name) for name in shown}) for view in views],
            ended=[EndedBody(**asdict(one)) for one in ended],
        )


class OverdueBody(BaseModel):
    """A chore that should have been done by now."""

    name: str
    done_at: datetime | None = Field(description="Time of its last run; null if it never ran.")


class ChoresBody(BaseModel):
    """The state of the chores."""

    is_anybody: bool = Field(description="Whether a process that does them (`farm chores`) lives.")
    overdue: list[OverdueBody] = Field(
        description="Chores that are late: no process does them, or they fail or take very long."
    )

    @classmethod
    def from_standing(cls, standing: Standing) -> Self:
        """Return the JSON of the chores' state, as `GET /api/v1/chores` sends it."""
        return cls(is_anybody=standing.is_anybody, overdue=[OverdueBody(**asdict(chore)) for chore in standing.overdue])
