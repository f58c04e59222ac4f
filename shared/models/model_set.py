"""The model files that an image is rendered with: admission resolves their names once, the job stores what it found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(min_length=1)]
NO_FILE: Final = "none"
"""The lane of images that need no model file."""
_BESIDE: Final = frozenset({"vae", "hires_vae", "upscaler", "second_upscaler", "face_restorer"})
"""The roles of one file that is not a checkpoint."""


class Merge(BaseModel):
    """An adapter that is merged into the checkpoints before the image starts, with its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: Sha256
    text_encoder: float = 1.0
    unet: float = 1.0

    def __lt__(self, other: Merge) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[str, float, float]:
        return self.sha256, self.text_encoder, self.unet


class ModelSet(BaseModel):
    """Role -> SHA-256 of the model file that an image needs for it. Without a VAE a checkpoint decodes by its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    checkpoint: Sha256 | None = None  # None: pictures are only enlarged
    vae: Sha256 | None = None
    refiner: Sha256 | None = None  # a checkpoint that takes over on the way; it decodes nothing
    hires: Sha256 | None = None  # the second pass's checkpoint; None: the first pass's
    hires_vae: Sha256 | None = None
    upscaler: Sha256 | None = None  # that enlarges the first pass's picture for the second, or pictures by themselves
    second_upscaler: Sha256 | None = None  # whose result is mixed into the other's
    face_restorer: Sha256 | None = None  # of the finished picture's faces
    controls: Annotated[tuple[Sha256, ...], Field(strict=False)] = ()  # of each of the parameters' `controlnet`
    adapters: dict[str, Sha256] = {}  # applied image by image: by `shared.prompts.adapters.Use.key`, of both passes
    merges: Annotated[tuple[Merge, ...], Field(strict=False)] = ()  # sorted; of both passes
    embeddings: dict[str, Sha256] = {}  # whose words prompts mention: by the paths of their files
    ip_adapters: Annotated[tuple[Sha256, ...], Field(strict=False)] = ()  # of each of the parameters' `ip_adapters`
    image_encoders: Annotated[tuple[Sha256, ...], Field(strict=False)] = ()  # that these read pictures by
    hashes: dict[str, str] = {}  # of adapters and embeddings, as pictures say them: by `Use.key`, or `embedding:word`

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The checkpoints that must be resident before the image starts, the job's own first, each once."""
        files = (file for role, file in self if isinstance(file, str) and role not in _BESIDE)
        return tuple(dict.fromkeys(files))

    @property
    def lane(self) -> str:
        """The name under which images with these models are queued: the file that workers should hold already."""
        return self.checkpoint or self.upscaler or NO_FILE

    @property
    def companions(self) -> str:
        """The digest of what must be resident beside the job's own checkpoint; empty: nothing.

        These are other checkpoints, what is merged into them, control nets, and IP-Adapters with image encoders.
        """
        beside = {*self.controls, *self.ip_adapters, *self.image_encoders}
        others = sorted({*self.checkpoints, *beside} - {self.checkpoint})
        merged = [f"{one.sha256}:{one.text_encoder!r}:{one.unet!r}" for one in self.merges]
        return hashlib.sha256(" ".join(others + merged).encode()).hexdigest() if others or merged else ""

    def to_stored(self) -> dict[str, Any]:
        """Return what the row of a job holds: the roles that have a file."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def from_stored(cls, stored: object) -> Self:
        """Return the set that the row of a job holds. Raises ValidationError for roles of a newer version."""
        return cls.model_validate(stored)


def hashes_in(stored: object) -> dict[str, str]:
    """Return the hashes of a stored set, also of one with roles of a newer version."""
    hashes = stored.get("hashes") if isinstance(stored, Mapping) else None
    return {str(key): str(value) for key, value in hashes.items()} if isinstance(hashes, Mapping) else {}
