"""`RenderParams`: what a person asked for. Frozen, validated once at the door, stored and rendered as it is."""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shared.samplers import AUTOMATIC

RANDOM_SEED: Final = -1
MAX_SEED: Final = 2**53 - 1  # the largest integer that every JSON reader keeps
NATIVE_SIZE: Final = 0


class RenderParams(BaseModel):
    """The complete parameters of a job, or of one image of it (`image`).

    `checkpoint` is what the person named (a name, a hash) until the door resolves it to `name [short hash]`; so are
    `seed` -1 (random) and a size of 0 (the checkpoint's own). What is stored and rendered is always resolved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    prompt: str = Field("", description="What the picture shows.")
    negative_prompt: str = Field("", description="What the picture should not show.")
    checkpoint: str = Field("", description="Name or hash of the checkpoint; empty: the farm's first one.")
    width: int = Field(NATIVE_SIZE, ge=0, multiple_of=8, description="Pixels; 0: the checkpoint's own size.")
    height: int = Field(NATIVE_SIZE, ge=0, multiple_of=8, description="Pixels; 0: the checkpoint's own size.")
    steps: int = Field(20, ge=1, description="Denoising steps.")
    cfg_scale: float = Field(7.0, ge=0, description="How strongly the prompt guides; 1 renders without guidance.")
    sampler: str = Field("Euler a", description="Name of the sampler.")
    schedule: str = Field(AUTOMATIC, description="Noise schedule; automatic: the sampler's own.")
    seed: int = Field(
        RANDOM_SEED, ge=RANDOM_SEED, le=MAX_SEED, description="Start of the noise; image i uses seed + i; -1: random."
    )
    count: int = Field(1, ge=1, description="How many images.")
    exact: bool = Field(False, description="Share no card call with other images: bit-identical on one kind of card.")

    @field_validator("prompt", "negative_prompt", "checkpoint")
    @classmethod
    def _storable(cls, text: str) -> str:
        if "\x00" in text:
            raise ValueError("holds a NUL character, which no text may hold")
        if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
            raise ValueError("holds half of a character (a lone surrogate)")
        return text

    @property
    def rows(self) -> int:
        """Rows of the card that one denoising step of one image takes."""
        return 1 if self.cfg_scale in {0, 1} else 2  # at 0 the negative prompt guides alone

    def image(self, index: int) -> Self:
        """Return the parameters of image `index` alone: what the engine, the PNG and the client see."""
        return self.model_copy(update={"seed": self.seed + index, "count": 1})

    @classmethod
    def from_stored(cls, stored: dict[str, Any]) -> Self:
        """Return parameters as a job row holds them; a field that is younger than the row takes its default.

        A default therefore never changes: a new meaning gets a new field.
        """
        return cls.model_validate(stored)
