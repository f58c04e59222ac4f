"""Bodies of the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from shared.accounts.audit import Line


class AuditLineBody(BaseModel):
    """One deed."""

    id: int
    at: datetime
    owner: str = Field(description="Who did it; `farm keys` and other commands stand for people beside the database.")
    role: str = Field(description="In which role; empty for a sign-in that was refused: then the owner is an address.")
    action: str = Field(description="Such as `key.made` or `job.cancelled`; a newer version may know more.")
    object: str = Field(description="Such as `job 17`.")
    whose: str | None = Field(description="The owner of the object.")
    detail: str = Field(description="Such as `queued=20` where limits were set; empty: nothing.")


class AuditBody(BaseModel):
    """A page of the audit log, the latest deeds first."""

    lines: list[AuditLineBody]
    next: int | None = Field(description="`cursor` of the next page; null on the last.")

    @classmethod
    def of(cls, lines: Sequence[Line], limit: int) -> Self:
        """Return the body of `limit` lines at most, of which one more was read."""
        shown = [AuditLineBody(**asdict(line)) for line in lines[:limit]]
        return cls(lines=shown, next=shown[-1].id if len(lines) > limit else None)
