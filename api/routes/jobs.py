"""Jobs over HTTP: submit, look, list, cancel, retry, hold, release, delete."""

from __future__ import annotations

from hashlib import sha256

from flask import Response, request

from api.http.body import read_json
from api.http.openapi import BODY, CONFLICT, LOOK, NOT_FOUND, SUBMIT, UNCHANGED, answers, section
from api.http.parameters import ImagePath, JobPath, JobsQuery, idempotency_key, wait_seconds
from api.http.responses import reply
from api.schemas.jobs import API, ChangeBody, JobBody, JobPageBody
from api.security import auth
from api.services import services
from api.use_cases import jobs as use_cases

blueprint = section("jobs", __name__, f"{API}/jobs")


@blueprint.post("", responses=answers(JobBody, 200, 202) | CONFLICT | BODY, openapi_extensions=SUBMIT)
def submit() -> Response:
    """Submit a job.

    The same Idempotency-Key with the same body leads to the same job. `Prefer: wait=20` holds the answer back until the
    job has ended, for that many seconds at most.
    """
    key, seconds = idempotency_key(), wait_seconds()
    submitted = use_cases.submit(services(), auth.owner(), read_json(), key)
    job, waited = submitted.job, False
    if seconds:
        job, waited = use_cases.wait(services(), auth.owner(), job.id, seconds)
        job.notes = submitted.job.notes
    answer = reply(job, 200 if job.is_final else 202)
    answer.headers["Location"] = job.links.self
    if waited:
        answer.headers["Preference-Applied"] = f"wait={seconds}"
    return answer


@blueprint.get("", responses=answers(JobPageBody, 200))
def jobs(query: JobsQuery) -> Response:
    """List the jobs, the latest first."""
    return reply(use_cases.jobs(services(), auth.owner(), query.state, query.cursor, query.limit))


@blueprint.get("/<id:job_id>", responses=answers(JobBody, 200) | UNCHANGED | NOT_FOUND, openapi_extensions=LOOK)
def job(path: JobPath) -> Response:
    """Look at a job: its state, its images and how far they are.

    The answer carries an ETag; sent back as If-None-Match, what has not changed is answered by 304.
    """
    answer = reply(use_cases.job(services(), auth.owner(), path.job_id))
    answer.headers["Cache-Control"] = "private, no-cache"
    answer.set_etag(sha256(answer.get_data()).hexdigest()[:32], weak=True)
    answer.make_conditional(request)
    return answer


@blueprint.delete("/<id:job_id>", responses={204: None} | NOT_FOUND | CONFLICT)
def delete(path: JobPath) -> Response:
    """Delete a job and its pictures; one that is running has to be cancelled first."""
    use_cases.delete(services(), auth.owner(), path.job_id)
    return Response(status=204)


@blueprint.post("/<id:job_id>/cancel", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT)
def cancel(path: JobPath) -> Response:
    """Cancel every image of a job that has not ended."""
    return reply(use_cases.cancel(services(), auth.owner(), path.job_id))


@blueprint.post("/<id:job_id>/images/<id:index>/cancel", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT)
def cancel_image(path: ImagePath) -> Response:
    """Cancel one image."""
    return reply(use_cases.cancel(services(), auth.owner(), path.job_id, path.index))


@blueprint.post("/<id:job_id>/retry", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT)
def retry(path: JobPath) -> Response:
    """Put every failed and cancelled image of a job back into the queue, with the same seeds."""
    return reply(use_cases.retry(services(), auth.owner(), path.job_id))


@blueprint.post("/<id:job_id>/images/<id:index>/retry", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT)
def retry_image(path: ImagePath) -> Response:
    """Put one failed or cancelled image back into the queue."""
    return reply(use_cases.retry(services(), auth.owner(), path.job_id, path.index))


@blueprint.post("/<id:job_id>/hold", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT)
def hold(path: JobPath) -> Response:
    """Hold a job: its queued images wait until it is released; what runs goes on."""
    return reply(use_cases.hold(services(), auth.owner(), path.job_id))


@blueprint.post("/<id:job_id>/release", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT)
def release(path: JobPath) -> Response:
    """Queue the held images of a job, whatever held them."""
    return reply(use_cases.release(services(), auth.owner(), path.job_id))
