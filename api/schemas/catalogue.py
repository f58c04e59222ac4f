"""The API's JSON of model files, samplers, schedules, and styles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from shared.models.catalogue import Catalogue, Entry
from shared.models.details import Details
from shared.models.facets import Faceted
from shared.models.kinds import KINDS
from shared.params.samplers import SAMPLERS, SCHEDULE_OPTIONS, SCHEDULES
from shared.prompts.styles import Style
from shared.wording import choices


class VaeBody(BaseModel):
    """One VAE of the models folder, as the last scan saw it."""

    name: str = Field(description="Name in a job's parameters.")
    title: str = Field(description="`name [short hash]`, as jobs store it.")
    path: str = Field(description="Relative to its models folder; whole if an earlier folder has a file there.")
    sha256: str | None = Field(description="Hash of its weights and their description.")
    weights_sha256: str | None = Field(description="Hash of the weights alone, as other programs show it.")
    note: str | None = Field(description="An oddity of a file that can be used.")
    architecture: str | None
    size: int = Field(description="Bytes.")
    usable: bool
    reason: str | None = Field(description="Why it cannot be used.")
    scanned_at: datetime

    @classmethod
    def from_entry(cls, file: Entry) -> Self:
        """Return the body of `file`."""
        columns = cls.model_fields.keys() - {"title"}
        return cls(title=file.title, **{name: getattr(file, name) for name in columns})


class DecoderBody(VaeBody):
    """One tiny decoder of the models folder, for previews, as the last scan saw it."""


class CheckpointBody(VaeBody):
    """One checkpoint of the models folder, as the last scan saw it."""

    prediction: str | None = Field(description="What its network predicts: noise or velocity.")
    native_size: int | None = Field(description="Side that it was trained for, pixels.")
    has_vae: bool = Field(
        description="Whether it contains a VAE; if not, it needs one beside it, or the job names one."
    )


class ModelBody(CheckpointBody):
    """One model file of any kind, as the last scan saw it."""

    kind: str = Field(description=f"{choices([*KINDS])}; a newer version may know others.")
    details: Details = Field(description="Details in its content, if it can be used.")


@dataclass(frozen=True)
class Page:
    """A part of a list, and where the next one begins; None: it was the last one."""

    files: Sequence[Entry]
    next: int | None


class ModelCounts(BaseModel):
    """How many files each choice of a filter lists, with the other filters as they are."""

    kind: dict[str, int] = Field(description="By kind.")
    architecture: dict[str, int] = Field(description="By architecture.")
    prediction: dict[str, int] = Field(description="By prediction.")


class ModelsBody(BaseModel):
    """A page of the catalogue: checkpoints first, then VAEs, LoRAs and so on, each kind by name."""

    models: list[ModelBody]
    next: int | None = Field(description="`cursor` of the next page; null on the last one.")
    total: int = Field(description="Files that the search finds, before the filters.")
    counts: ModelCounts
    is_complete: bool = Field(
        description="False until a worker has scanned the whole models folder: there may be more."
    )

    @classmethod
    def from_part(cls, found: Faceted, page: Page, is_complete: bool) -> Self:  # noqa: FBT001 - a fact, no option
        """Return a page of the files that were `found` in the catalogue."""
        return cls(
            models=[ModelBody.from_entry(file) for file in page.files],
            next=page.next,
            total=found.total,
            counts=ModelCounts(**found.counts),
            is_complete=is_complete,
        )


class CheckpointCounts(BaseModel):
    """How many checkpoints each choice of a filter lists, with the other filter as it is."""

    architecture: dict[str, int] = Field(description="By architecture.")
    prediction: dict[str, int] = Field(description="By prediction.")


class CheckpointsBody(BaseModel):
    """The catalogue."""

    checkpoints: list[CheckpointBody]
    next: int | None = Field(default=None, description="`cursor` of the next page; null on the last one.")
    total: int = Field(description="Checkpoints before any filter.")
    counts: CheckpointCounts
    is_complete: bool = Field(
        default=True, description="False until a worker has scanned the whole models folder: there may be more."
    )

    @classmethod
    def from_part(cls, found: Faceted, page: Page, is_complete: bool) -> Self:  # noqa: FBT001 - a fact, no option
        """Return a page of the checkpoints that were `found` in the catalogue."""
        return cls(
            checkpoints=[CheckpointBody.from_entry(file) for file in page.files],
            next=page.next,
            total=found.total,
            counts=CheckpointCounts(**found.counts),
            is_complete=is_complete,
        )


class VaesBody(BaseModel):
    """The VAEs of the catalogue."""

    vaes: list[VaeBody]

    @classmethod
    def from_catalogue(cls, catalogue: Catalogue) -> Self:
        """Return the VAEs of the catalogue."""
        return cls(vaes=[VaeBody.from_entry(file) for file in catalogue.entries("vae")])


class DecodersBody(BaseModel):
    """The tiny decoders of the catalogue."""

    decoders: list[DecoderBody]

    @classmethod
    def from_catalogue(cls, catalogue: Catalogue) -> Self:
        """Return the tiny decoders of the catalogue."""
        return cls(decoders=[DecoderBody.from_entry(file) for file in catalogue.entries("decoder")])


class OtherBody(BaseModel):
    """One file of the models folder of a kind that the farm cannot use, as the last scan saw it."""

    name: str
    path: str = Field(description="Relative to its models folder; whole if an earlier folder has a file there.")
    size: int = Field(description="Bytes.")
    reason: str = Field(description="Its kind.")
    scanned_at: datetime


class OthersBody(BaseModel):
    """The files of the models folder that the farm cannot use."""

    others: list[OtherBody]

    @classmethod
    def from_catalogue(cls, catalogue: Catalogue) -> Self:
        """Return the files of the catalogue that the farm cannot use."""
        columns, files = OtherBody.model_fields, catalogue.entries("other")
        return cls(others=[OtherBody(**{name: getattr(file, name) for name in columns}) for file in files])


class SamplerBody(BaseModel):
    """One sampler."""

    name: str
    schedules: list[str] = Field(description="Schedules that it takes.")
    automatic: str = Field(description="Schedule that `automatic` means for it.")
    is_ancestral: bool = Field(description="Whether it adds noise at each step, so that more steps change the picture.")
    aliases: list[str] = Field(description="Other names that are understood.")
    options: list[str] = Field(description="The fields of `sampling` that it takes.")
    order: int = Field(description="Model calls of a step; a step to sigma 0 takes one.")


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

    name: str = Field(description="Name in a job's `styles`.")
    prompt: str = Field(
        description="Text that is appended to the prompt; if it contains {prompt}, the prompt takes that place."
    )
    negative_prompt: str = Field(description="The same for the negative prompt.")


class StylesBody(BaseModel):
    """Every style."""

    styles: list[StyleBody]

    @classmethod
    def from_styles(cls, styles: Iterable[Style]) -> Self:
        """Return the body of `styles`."""
        return cls(styles=[StyleBody(**style._asdict()) for style in styles])


class TokensBody(BaseModel):
    """The length of a prompt."""

    tokens: int = Field(description="Tokens, with the unused ends of full chunks.")
    limit: int = Field(description="Room of the chunks in use: 75, 150, …")
