"""The API's JSON of what is wrong with a request."""

from __future__ import annotations

from pydantic import BaseModel, Field


class FieldProblem(BaseModel):
    """One fault of one field."""

    field: str = Field(description="Name of the field, or of the header.")
    message: str = Field(description="Why its value cannot be accepted.")
    accepted: str = Field(description="What would be accepted.")
