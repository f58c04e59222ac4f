"""Workers and the chores of a farm, as the API shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Final, Self

from pydantic import BaseModel, Field

from shared.db.locks import Standing
from shared.db.states import WorkerState
from shared.queue.history import Deaths
from shared.queue.queries import WorkerView

_SHORT: Final = 10  # characters of a hash by which people know a file


class ResidentModelBody(BaseModel):
    """A model in the memory of a worker."""

    name: str = Field(description="Name in the catalogue; the beginning of its hash if its file is gone.")
    kind: str = Field(
        description="checkpoint, lora and so on, as in the list of models; merged: a checkpoint with adapters in it."
    )
    sha256: str
    bytes: int | None = Field(
        description="With networks that other models share; null from a worker of an older version."
    )


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
    models: list[ResidentModelBody] = Field(
        default=[],
        description="The models in its memory, at most 64, the largest first; of an older version checkpoints alone.",
    )
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
    def from_views(cls, views: Iterable[WorkerView], names: Mapping[str, str], ended: Iterable[Deaths] = ()) -> Self:
        """Return the body of the workers; `names` are those of model files by their SHA-256."""
        return cls(
            workers=[_worker(view, names) for view in views],
            ended=[EndedBody(**asdict(one)) for one in ended],
        )


def _worker(view: WorkerView, names: Mapping[str, str]) -> WorkerBody:
    shown = {name: getattr(view, name) for name in WorkerBody.model_fields}
    known: list[tuple[str, str, int | None]] = [(one.kind, one.sha256, one.bytes) for one in view.models]
    models = [
        ResidentModelBody(name=names.get(sha256, sha256[:_SHORT]), kind=kind, sha256=sha256, bytes=size)
        for kind, sha256, size in known or [("checkpoint", sha256, None) for sha256 in view.resident]
    ]
    return WorkerBody(**shown | {"models": models})


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
