"""Why a request got no picture."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from api.http.watch import Watch
from api.schemas.jobs import JobBody
from shared.db.states import ImageState


@dataclass(frozen=True)
class Failure:
    """A failure as clients read it; the same request would fail again unless it `may_be_repeated`."""

    status: HTTPStatus
    message: str
    code: str
    may_be_repeated: bool = False


def failure(job: JobBody, watch: Watch) -> Failure:
    """Return why a job that was waited for has no picture."""
    if watch.is_stopped:
        return Failure(HTTPStatus.SERVICE_UNAVAILABLE, "The farm is stopping: try again.", "stopping", True)
    if not watch.has_ended:
        now = "It is cancelled." if job.state == ImageState.CANCELLED.value else "It goes on."
        why = job.waiting.text if job.waiting else now
        late = f"Job {job.id} has no picture after {watch.seconds:g} s. {why}"
        return Failure(HTTPStatus.GATEWAY_TIMEOUT, late, "timeout")
    reasons = [image.reason for image in job.images if image.reason]
    why = reasons[0] if reasons else "its pictures were deleted"
    if job.state == ImageState.CANCELLED.value:
        return Failure(HTTPStatus.CONFLICT, f"Job {job.id} was cancelled: {why}", "job_cancelled")
    return Failure(HTTPStatus.INTERNAL_SERVER_ERROR, f"Job {job.id} failed: {why}", "image_generation_failed")
