"""Bodies of owners."""

from __future__ import annotations

from dataclasses import asdict
from typing import Self

from pydantic import BaseModel, Field

from shared.maintenance.wiping import Wiped


class WipedBody(BaseModel):
    """How much of an owner was deleted."""

    owner: str
    keys: int = Field(description="Keys that were revoked.")
    jobs: int = Field(description="Jobs that were deleted, with their pictures.")
    left: int = Field(
        description="Jobs that are left: ask again until there are none. At least 1 within a second of a key's end."
    )

    @classmethod
    def of(cls, wiped: Wiped) -> Self:
        """Return the body of what was deleted."""
        return cls(**asdict(wiped))
