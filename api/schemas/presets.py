"""Bodies of presets."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from shared.jobs.presets import Preset


class PresetBody(BaseModel):
    """Parameters that an owner keeps under a name."""

    name: str
    params: dict[str, Any] = Field(description="Parameters that are not at their defaults, ready to be submitted.")
    changed_at: datetime
    left_out: list[str] = Field(
        default=[], description="Groups that were not kept because they hold pictures; only in the answer to a PUT."
    )

    @classmethod
    def of(cls, preset: Preset, left_out: list[str] | None = None) -> Self:
        """Return the body of a preset."""
        return cls(**preset._asdict(), left_out=left_out or [])


class PresetsBody(BaseModel):
    """An owner's presets, by name."""

    presets: list[PresetBody]
