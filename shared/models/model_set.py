"""The model files that an image is rendered with: admission resolves their names once, the job stores what it found."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(min_length=1)]
_VAES: Final = frozenset({"vae", "hires_vae"})
"""The roles of files other than checkpoints."""


class ModelSet(BaseModel):
    """Role -> SHA-256 of the model file that an image needs for it. Without a VAE a checkpoint decodes by its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    checkpoint: Sha256
    vae: Sha256 | None = None
    refiner: Sha256 | None = None  # a checkpoint that takes over on the way; it decodes nothing
    hires: Sha256 | None = None  # the second pass's checkpoint; None: the first pass's
    hires_vae: Sha256 | None = None

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The checkpoints that must be resident before the image starts, the job's own first, each once."""
        return tuple(dict.fromkeys(sha256 for role, sha256 in self if sha256 and role not in _VAES))

    @property
    def companions(self) -> str:
        """The digest of the checkpoints that must be resident beside the job's own; empty: there are none."""
        others = sorted(set(self.checkpoints) - {self.checkpoint})
        return hashlib.sha256(" ".join(others).encode()).hexdigest() if others else ""

    def to_stored(self) -> dict[str, Any]:
        """Return what the row of a job holds: the roles that have a file."""
        return self.model_dump(exclude_none=True)

    @classmethod
    def from_stored(cls, stored: object) -> Self:
        """Return the set that the row of a job holds. Raises ValidationError for roles of a newer version."""
        return cls.model_validate(stored)
