"""The contact sheet of a job as a table: a row for each image."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field

from api.schemas.jobs import AxisBody, ImageBody, JobBody, ShownState


class CellBody(BaseModel):
    """One image of a sheet."""

    index: int
    cell: list[int] = Field(description="Its place on each axis, from 0.")
    titles: list[str] = Field(description="The titles of its values, an axis each.")
    state: ShownState
    reason: str | None = Field(description="Why it failed or waits.")
    seed: int
    changes: dict[str, Any] = Field(description="What it changes of the job's parameters, by dotted name.")
    seconds: float | None = Field(description="Seconds from its start to its end.")
    picture: str | None = Field(description="Link of the picture.")

    @classmethod
    def from_image(cls, image: ImageBody) -> Self:
        """Return the cell of `image`."""
        return cls(
            index=image.index,
            cell=image.cell,
            titles=image.titles,
            state=image.state,
            reason=image.reason,
            seed=image.seed,
            changes=image.changes or {},
            seconds=image.seconds,
            picture=image.links.picture,
        )


class SheetBody(BaseModel):
    """All cells of a job with its axes and what the cells share."""

    job: int
    prompt: str
    axes: list[AxisBody]
    shared: dict[str, str] = Field(description="Parameters that are the same in all images, as pictures name them.")
    cells: list[CellBody] = Field(description="By index: the last axis varies fastest.")

    @classmethod
    def from_job(cls, job: JobBody, shared: dict[str, str]) -> Self:
        """Return the sheet of `job`."""
        cells = [CellBody.from_image(image) for image in job.images]
        return cls(job=job.id, prompt=job.params.prompt, axes=job.axes, shared=shared, cells=cells)
