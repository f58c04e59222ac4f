"""Bodies of usage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date
from typing import Self

from pydantic import BaseModel, Field

from shared.accounts.scope import Scope
from shared.accounts.usage import Day


class UsedBody(BaseModel):
    """The pictures, card time and bytes of images."""

    images: int = Field(description="Finished pictures.")
    gpu_seconds: float = Field(description="Seconds of cards, those of attempts that came to nothing as well.")
    bytes: int = Field(description="Size of the finished pictures.")

    @classmethod
    def sum_of(cls, several: Iterable[UsedBody]) -> UsedBody:
        """Return what several took together."""
        images, seconds, size = 0, 0.0, 0
        for one in several:
            images, seconds, size = images + one.images, seconds + one.gpu_seconds, size + one.bytes
        return UsedBody(images=images, gpu_seconds=round(seconds, 3), bytes=size)


class UsageDayBody(UsedBody):
    """What an owner's images with one checkpoint took on one day."""

    day: date = Field(description="In UTC.")
    owner: str
    checkpoint: str = Field(
        description="SHA-256 of the checkpoint; without one, of the upscaler, or `none`. It may be gone."
    )
    name: str | None = Field(description="Name of that file, as long as the farm has it.")


class UsageBody(BaseModel):
    """What an owner, or everybody, took of the farm on some days."""

    owner: str | None = Field(description="null: everybody.")
    first: date
    last: date
    total: UsedBody
    days: list[UsageDayBody] = Field(description="The latest day first.")

    @classmethod
    def of(cls, whose: Scope, span: tuple[date, date], days: Iterable[Day], names: Mapping[str, str]) -> Self:
        """Return the body of days, with the names of their files."""
        lines = [
            UsageDayBody(**asdict(one) | {"gpu_seconds": round(one.gpu_seconds, 3)}, name=names.get(one.checkpoint))
            for one in days
        ]
        first, last = span
        return cls(owner=whose.owner, first=first, last=last, total=UsedBody.sum_of(lines), days=lines)
