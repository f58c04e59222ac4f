"""The API's JSON of sweeps that are not recorded."""

from __future__ import annotations

from pydantic import BaseModel, Field

from api.schemas.problems import FieldProblem


class AxisPreviewBody(BaseModel):
    """One axis of a sweep."""

    field: str = Field(description="Dotted name of a parameter, or an axis of its own kind such as prompt_replace.")
    label: str
    of: str = Field(description="What it varies: the name of a LoRA.")
    values: list[str] = Field(description="Titles of its values.")


class SweepPreviewBody(BaseModel):
    """What a sweep would be."""

    images: int = Field(description="How many pictures it has; 0 where that is not known for its problems.")
    draft: int = Field(description="How many of them would be rendered first.")
    seconds: float | None = Field(description="Estimated seconds of all workers together; null if no pace is known.")
    axes: list[AxisPreviewBody] = Field(description="The one that varies slowest first.")
    differs: list[str] = Field(description="Dotted names of the parameters that are not the same in all pictures.")
    first: list[list[str]] = Field(description="Titles of the first pictures.")
    notes: list[str] = Field(description="Choices that the farm would make.")
    problems: list[FieldProblem] = Field(description="Why it would be refused; empty: it would be accepted.")
