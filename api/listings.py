"""The shapes of what the farm has: checkpoints, samplers, schedules, workers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from shared import catalogue
from shared.queue.views import WorkerView
from shared.samplers import SAMPLERS, SCHEDULES
from shared.states import WorkerState
from shared.tables import ModelFile


class CheckpointBody(BaseModel):
    """One checkpoint of the models folder, as the last scan saw it."""

    name: str = Field(description="What people type.")
    title: str = Field(description="`name [short hash]`: what jobs store.")
    path: str = Field(description="Relative to the models folder.")
    sha256: str | None
    architecture: str | None
    native_size: int | None = Field(description="Pixels of a side that it was trained for.")
    size: int = Field(description="Bytes.")
    usable: bool
    reason: str | None = Field(description="Why it is not usable.")
    scanned_at: datetime


class CheckpointsBody(BaseModel):
    """The catalogue."""

    checkpoints: list[CheckpointBody]

    @classmethod
    def of(cls, files: Iterable[ModelFile]) -> Self:
        """Return what the catalogue looks like."""
        columns = CheckpointBody.model_fields.keys() - {"title"}
        return cls(
            checkpoints=[
                CheckpointBody(title=catalogue.title(file), **{name: getattr(file, name) for name in columns})
                for file in files
            ]
        )


class SamplerBody(BaseModel):
    """One sampler."""

    name: str
    schedules: list[str] = Field(description="The schedules that it takes.")
    automatic: str = Field(description="The schedule that `automatic` stands for.")
    is_ancestral: bool = Field(description="Adds noise at each step, so more steps change the picture.")


class SamplersBody(BaseModel):
    """Every sampler."""

    samplers: list[SamplerBody]

    @classmethod
    def all(cls) -> Self:
        """Return every sampler, in the order that people see them."""
        return cls(
            samplers=[
                SamplerBody(
                    name=sampler.name,
                    schedules=list(sampler.schedules),
                    automatic=sampler.automatic,
                    is_ancestral=sampler.is_ancestral,
                )
                for sampler in SAMPLERS.values()
            ]
        )


class ScheduleBody(BaseModel):
    """One noise schedule."""

    name: str
    label: str


class SchedulesBody(BaseModel):
    """Every schedule."""

    schedules: list[ScheduleBody]

    @classmethod
    def all(cls) -> Self:
        """Return every schedule, in the order that people see them."""
        return cls(schedules=[ScheduleBody(name=name, label=label) for name, label in SCHEDULES.items()])


class WorkerBody(BaseModel):
    """One worker: one start of one process, on one card."""

    id: int
    name: str
    host: str
    card: str
    card_name: str
    pool: str
    slots: int = Field(description="Images that it carries at once.")
    running: int = Field(description="Images that it carries now.")
    state: WorkerState
    phase: str = Field(description="What it does now, for people.")
    resident: list[str] = Field(description="SHA-256 of the checkpoints in its memory.")
    load_seconds: float | None = Field(description="How long it took to load its latest checkpoint.")
    started_at: datetime
    beat_at: datetime
    is_late: bool = Field(description="Silent past its lease: its images will be given back.")


class WorkersBody(BaseModel):
    """The workers that are alive."""

    workers: list[WorkerBody]

    @classmethod
    def of(cls, views: Iterable[WorkerView]) -> Self:
        """Return what the workers look like."""
        shown = WorkerBody.model_fields
        return cls(workers=[WorkerBody(**{name: getattr(view, name) for name in shown}) for view in views])
