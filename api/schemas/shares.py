"""Bodies of share links."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from shared.jobs.shares import MOST_DAYS, USUAL_DAYS, Made, Share
from shared.params.fields import MAX_ID


class ShareRequest(BaseModel):
    """What people without a key are to see."""

    model_config = ConfigDict(extra="forbid", strict=True)

    job: int = Field(ge=1, le=MAX_ID, description="The id of one of your jobs.")
    index: int | None = Field(default=None, ge=0, le=MAX_ID, description="One picture of it; null: all of them.")
    days: int = Field(default=USUAL_DAYS, ge=1, le=MOST_DAYS, description="After which the link ends.")


class ShareBody(BaseModel):
    """A link to a picture, or to all of a job."""

    id: int
    job_id: int
    index: int | None = Field(description="The picture; null: all of the job.")
    created_at: datetime
    expires_at: datetime
    link: str | None = Field(default=None, description="The page. Shown once: only its digest is kept.")

    @classmethod
    def of(cls, share: Share) -> Self:
        """Return the body of a link."""
        said = asdict(share)
        said.pop("owner")
        return cls(**said)

    @classmethod
    def with_link(cls, made: Made, base: str) -> Self:
        """Return the body of a new link with its address."""
        return cls.of(made.share).model_copy(update={"link": f"{base}/s/{made.token}"})


class SharesBody(BaseModel):
    """An owner's links that have not ended, the latest first."""

    shares: list[ShareBody]
