"""The shapes of what the farm has: checkpoints, VAEs, decoders, samplers, schedules, workers, chores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from shared.db.locks import Standing
from shared.db.states import WorkerState
from shared.models.catalogue import Catalogue, Entry
from shared.params.samplers import SAMPLERS, SCHEDULE_OPTIONS, SCHEDULES
from shared.prompts.styles import Style
from shared.queue.history import Deaths
from shared.queue.queries import WorkerView


class VaeBody(BaseModel):
    """One VAE of the models folder, as the last scan saw it."""

    name: str = Field(description="What people type.")
    title: str = Field(description="`name [short hash]`: what jobs store.")
    path: str = Field(description="Relative to the models folder.")
    sha256: str | None = Field(description="Of its weights, and of what else describes them.")
    weights_sha256: str | None = Field(description="Of the weights alone, as other programs have it.")
    note: str | None = Field(description="What is odd about it, though it can be used.")
    architecture: str | None
    size: int = Field(description="Bytes.")
    usable: bool
    reason: str | None = Field(description="Why it is not usable.")
    scanned_at: datetime

    @classmethod
    def of(cls, file: Entry) -> Self:
        """Return what the catalogue says of `file`."""
        columns = cls.model_fields.keys() - {"title"}
        return cls(title=file.title, **{name: getattr(file, name) for name in columns})


class DecoderBody(VaeBody):
    """One tiny decoder of the models folder, for previews, as the last scan saw it."""


class CheckpointBody(VaeBody):
    """One checkpoint of the models folder, as the last scan saw it."""

    native_size: int | None = Field(description="Pixels of a side that it was trained for.")
    has_vae: bool = Field(description="Whether a VAE is inside; else one is needed beside it, or named.")


class CheckpointsBody(BaseModel):
    """The catalogue."""

    checkpoints: list[CheckpointBody]
    is_complete: bool = Field(
        default=True, description="False until a worker has looked at the whole models folder: there may be more."
    )

    @classmethod
    def of(cls, catalogue: Catalogue, first: str) -> Self:
        """Return the checkpoints of the catalogue; those that are called `first` come first."""
        files = catalogue.entries(first=first)
        return cls(checkpoints=[CheckpointBody.of(file) for file in files], is_complete=catalogue.awaited_since is None)


class VaesBody(BaseModel):
    """The VAEs of the catalogue."""

    vaes: list[VaeBody]

    @classmethod
    def of(cls, catalogue: Catalogue) -> Self:
        """Return the VAEs of the catalogue."""
        return cls(vaes=[VaeBody.of(file) for file in catalogue.entries("vae")])


class DecodersBody(BaseModel):
    """The tiny decoders of the catalogue."""

    decoders: list[DecoderBody]

    @classmethod
    def of(cls, catalogue: Catalogue) -> Self:
        """Return the tiny decoders of the catalogue."""
        return cls(decoders=[DecoderBody.of(file) for file in catalogue.entries("decoder")])


class OtherBody(BaseModel):
    """One file of the models folder of a kind that the farm cannot use, as the last scan saw it."""

    name: str
    path: str = Field(description="Relative to the models folder.")
    size: int = Field(description="Bytes.")
    reason: str = Field(description="What it is.")
    scanned_at: datetime


class OthersBody(BaseModel):
    """The files of the catalogue that are none of its models."""

    others: list[OtherBody]

    @classmethod
    def of(cls, catalogue: Catalogue) -> Self:
        """Return the files of the catalogue that the farm cannot use."""
        columns, files = OtherBody.model_fields, catalogue.entries("other")
        return cls(others=[OtherBody(**{name: getattr(file, name) for name in columns}) for file in files])


class SamplerBody(BaseModel):
    """One sampler."""

    name: str
    schedules: list[str] = Field(description="The schedules that it takes.")
    automatic: str = Field(description="The schedule that `automatic` stands for.")
    is_ancestral: bool = Field(description="Adds noise at each step, so more steps change the picture.")
    aliases: list[str] = Field(description="Other names of it that are understood.")
    options: list[str] = Field(description="The fields of `sampling` that it takes.")
    order: int = Field(description="Model calls a step, but for a step to sigma 0.")


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
                    aliases=list(sampler.aliases),
                    options=list(sampler.options),
                    order=sampler.order,
                )
                for sampler in SAMPLERS.values()
            ]
        )


class ScheduleBody(BaseModel):
    """One noise schedule."""

    name: str
    label: str
    options: list[str] = Field(description="The fields of `sampling` that it takes.")


class SchedulesBody(BaseModel):
    """Every schedule."""

    schedules: list[ScheduleBody]

    @classmethod
    def all(cls) -> Self:
        """Return every schedule, in the order that people see them."""
        return cls(
            schedules=[
                ScheduleBody(name=name, label=label, options=list(SCHEDULE_OPTIONS.get(name, ())))
                for name, label in SCHEDULES.items()
            ]
        )


class StyleBody(BaseModel):
    """One style."""

    name: str = Field(description="What a job's `styles` name.")
    prompt: str = Field(description="Joins the prompt: after it, or around it where it says {prompt}.")
    negative_prompt: str = Field(description="Joins the negative prompt.")


class StylesBody(BaseModel):
    """Every style."""

    styles: list[StyleBody]

    @classmethod
    def of(cls, styles: Iterable[Style]) -> Self:
        """Return what the styles look like."""
        return cls(styles=[StyleBody(**style._asdict()) for style in styles])


class TokensBody(BaseModel):
    """How long a prompt is."""

    tokens: int = Field(description="With what full chunks leave unused at their ends.")
    limit: int = Field(description="What the chunks in use hold: 75, 150, …")


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
    load_seconds: float | None = Field(description="How long its latest checkpoint took to load from its file.")
    started_at: datetime
    beat_at: datetime
    is_late: bool = Field(description="Silent past its lease: its images will be given back.")
    drained: str | None = Field(description="Why it takes nothing new until it is resumed; null: it does.")
    trouble: str | None = Field(
        description="What is wrong with it, such as why its card cannot be used: with the state `drained` it takes "
        "nothing until that is mended, with another it goes on. null: nothing is known of."
    )


class EndedBody(BaseModel):
    """A worker that has died in the last hour; it may be up again."""

    name: str
    times: int = Field(description="How often.")
    reason: str = Field(description="Of what, the last time, and when it was to be tried again.")
    at: datetime = Field(description="The last time.")


class WorkersBody(BaseModel):
    """The workers that are alive, and those that have died lately."""

    workers: list[WorkerBody]
    ended: list[EndedBody] = Field(default=[], description="Died in the last hour, the latest first.")

    @classmethod
    def of(cls, views: Iterable[WorkerView], ended: Iterable[Deaths] = ()) -> Self:
        """Return what the workers look like."""
        shown = WorkerBody.model_fields
        return cls(
            workers=[WorkerBody(**{name: getattr(view, name) for name in shown}) for view in views],
            ended=[EndedBody(**asdict(one)) for one in ended],
        )


class OverdueBody(BaseModel):
    """A chore that should have been done by now."""

    name: str
    done_at: datetime | None = Field(description="The last time; null: never.")


class ChoresBody(BaseModel):
    """How what has to be done now and then stands."""

    is_anybody: bool = Field(description="A process that does them (`farm chores`) lives.")
    overdue: list[OverdueBody] = Field(description="Those that nobody does, that fail, or that take very long.")

    @classmethod
    def of(cls, standing: Standing) -> Self:
        """Return what the chores look like."""
        return cls(is_anybody=standing.is_anybody, overdue=[OverdueBody(**asdict(chore)) for chore in standing.overdue])
