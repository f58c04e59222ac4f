"""A job as clients of Replicate read a prediction."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, Field

from api.compat.replicate.models import OWNER
from api.compat.replicate.request import NAMES
from api.schemas.jobs import JobBody
from shared.db.states import ImageState
from shared.params.codecs import split_title

PREFIX: Final = "/replicate/v1"

Status = Literal["starting", "processing", "succeeded", "failed", "canceled"]

_STATUSES: Final[dict[str, Status]] = {
    ImageState.RUNNING: "processing",
    ImageState.SUCCEEDED: "succeeded",
    ImageState.FAILED: "failed",
    ImageState.CANCELLED: "canceled",
}
_INPUTS: Final = ("prompt", "negative_prompt", "width", "height", "seed")  # so called there as well
_THEIRS: Final = {ours: name for name, ours in NAMES.items()}
_BAR: Final = 10  # letters


class Metrics(BaseModel):
    """What a prediction took."""

    predict_time: float | None = Field(description="Seconds that it rendered.")
    total_time: float | None = Field(description="Seconds from its creation to its end.")
    image_count: int


class Links(BaseModel):
    """Addresses of a prediction."""

    get: str
    cancel: str
    stream: str
    web: str


class PredictionBody(BaseModel):
    """A prediction."""

    id: str
    model: str
    version: str
    input: dict[str, Any] = Field(description="What the farm renders, with what it has chosen itself.")
    output: list[str] | None = Field(description="Links to the pictures; they need the same key.")
    logs: str
    error: str | None
    status: Status
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    metrics: Metrics
    urls: Links
    source: Literal["api"] = "api"
    data_removed: bool = False

    @classmethod
    def from_job(cls, job: JobBody, root: str) -> Self:
        """Return the prediction that a job is; links begin with `root`."""
        here = f"{root}{PREFIX}/predictions/{job.id}"
        params = job.params.model_dump(mode="json", include={*_INPUTS, *_THEIRS})
        name, short_hash = split_title(job.params.checkpoint)
        starts = [image.started_at for image in job.images if image.started_at]
        output = [f"{root}{image.links.picture}" for image in job.images if image.links.picture]
        reasons = [image.reason for image in job.images if image.reason]
        status = _STATUSES.get(job.state, "starting")
        return cls(
            id=str(job.id),
            model=f"{OWNER}/{name}",
            version=short_hash,
            input={_THEIRS.get(name, name): value for name, value in params.items()},
            output=output or None,
            logs=_logs(job),
            error=reasons[0] if reasons and status == "failed" else None,
            status=status,
            created_at=job.created_at,
            started_at=min(starts, default=None),
            completed_at=job.ended_at,
            metrics=Metrics(
                predict_time=job.timings.render_seconds,
                total_time=(job.ended_at - job.created_at).total_seconds() if job.ended_at else None,
                image_count=len(output),
            ),
            urls=Links(get=here, cancel=f"{here}/cancel", stream=f"{here}/stream", web=f"{root}{job.links.page}"),
            data_removed=any(image.deleted_at for image in job.images),
        )


class PredictionPage(BaseModel):
    """A page of predictions, the latest first."""

    previous: None = None
    next: str | None
    results: list[PredictionBody]


def _logs(job: JobBody) -> str:
    """Return seed and progress, in a form of which clients read the progress, and why it waits."""
    done, steps = sum(image.step for image in job.images), sum(image.steps for image in job.images)
    share = done / max(steps, 1)
    bar = f"{share:4.0%}|{'█' * int(share * _BAR):{_BAR}}| {done}/{steps}"
    waits = [job.waiting.text] if job.waiting else []
    return "\n".join([f"Using seed: {job.params.seed}", *waits, bar])
