"""Bodies of limits."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from shared.accounts.limit_rows import LimitRow
from shared.admission.allowance import Balance


class LimitBody(BaseModel):
    """One of your limits."""

    name: str = Field(description="Such as `queued`.")
    label: str = Field(description="What it counts.")
    limit: int = Field(description="How much there may be.")
    used: int
    left: int
    renews_at: datetime | None = Field(description="When all of it is left again; null: as images start and end.")

    @classmethod
    def of(cls, balance: Balance) -> Self:
        """Return the body of a limit and what is used of it."""
        return cls(**balance._asdict(), left=balance.left)


class LimitsBody(BaseModel):
    """Your limits; everything else is not limited."""

    owner: str
    limits: list[LimitBody]
    checkpoints: tuple[str, ...] | None = Field(description="That your jobs may use; null: all.")
    pools: tuple[str, ...] | None = Field(description="That your jobs may wait in; null: all.")
    urgent: bool = Field(description="Whether your jobs may be urgent.")


class SetLimitsBody(BaseModel):
    """The limits that are set for an owner; others are those of the role."""

    owner: str
    limits: dict[str, Any] = Field(description="By name; null: no limit, also where the role has one.")
    set_at: datetime | None
    set_by: str | None

    @classmethod
    def of(cls, row: LimitRow) -> Self:
        """Return the body of what is set for an owner."""
        return cls(owner=row.owner, limits=dict(row.given), set_at=row.set_at, set_by=row.set_by)


class OwnersLimitsBody(BaseModel):
    """The limits that are set for owners, by their names."""

    owners: list[SetLimitsBody]


class LimitsChange(BaseModel):
    """Limits to be set. Each may also be null or "none" (no limit) or "role" (the role's again)."""

    queued: int | str | None = Field(None, description="Images that wait.")
    running: int | str | None = Field(None, description="Images that run at once.")
    daily_images: int | str | None = Field(None, description="Images a day, in UTC.")
    daily_work: int | str | None = Field(None, description="Megapixel steps a day, in UTC.")
    monthly_gpu_seconds: int | str | None = Field(None, description="GPU seconds a month, in UTC.")
    upload_mb: int | str | None = Field(None, description="MiB of source pictures.")
    checkpoints: list[str] | str | None = Field(None, description="Names or hashes of those that may be used.")
    pools: list[str] | str | None = Field(None, description="Those that jobs may wait in.")
    urgent: bool | str | None = Field(None, description="Whether jobs may be urgent.")
