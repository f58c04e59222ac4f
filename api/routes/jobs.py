"""Jobs over HTTP: submit, get, list, cancel, retry, hold, release, approve, delete."""

from __future__ import annotations

from flask import Response, request

from api.http.body import read_json
from api.http.openapi import BODY, CHANGE, CONFLICT, LOOK, NOT_FOUND, SUBMIT, UNCHANGED, answers, section
from api.http.parameters import CancelQuery, ImagePath, ImagesQuery, JobPath, JobsQuery, idempotency_key, wait_seconds
from api.http.responses import reply
from api.schemas.jobs import API, ChangeBody, ImagePageBody, JobBody, JobPageBody
from api.security import auth
from api.services import services
from api.use_cases import jobs as use_cases
from api.use_cases import polls
from shared.queue.queries import Span

blueprint = section("jobs", __name__, f"{API}/jobs")


@blueprint.post("", responses=answers(JobBody, 200, 202) | CONFLICT | BODY, openapi_extensions=SUBMIT)
def submit() -> Response:
    """Submit a job.

    The same Idempotency-Key with the same body leads to the same job. With `Prefer: wait=20` the answer comes when the
    job has ended, or after 20 seconds.
    """
    key, seconds = idempotency_key(), wait_seconds()
    submitted = use_cases.submit(services(), auth.principal(), read_json(), key)
    job, waited = submitted.job, False
    if seconds:
        job, waited = use_cases.wait(services(), auth.principal(), job.id, seconds)
        job.notes = submitted.job.notes
    answer = reply(job, 200 if job.is_final else 202)
    answer.headers["Location"] = job.links.self
    if waited:
        answer.headers["Preference-Applied"] = f"wait={seconds}"
    return answer


@blueprint.get("", responses=answers(JobPageBody, 200))
def jobs(query: JobsQuery) -> Response:
    """List your jobs, the latest first; an admin lists those of others too."""
    who = auth.principal()
    return reply(use_cases.jobs(services(), who, query.state, query.cursor, query.limit, owner=query.owner))


@blueprint.get("/<id:job_id>", responses=answers(JobBody, 200) | UNCHANGED | NOT_FOUND, openapi_extensions=LOOK)
def job(path: JobPath, query: ImagesQuery) -> Response:
    """Get a job: its state, its first images and their progress.

    The answer has an ETag. Send it as If-None-Match: the answer is 304 if nothing has changed.
    """
    who = auth.principal()
    if query.span == Span():
        polled = polls.poll(services(), who, path.job_id)
    else:
        polled = polls.answer(use_cases.job(services(), who, path.job_id, query.span))
    answer = Response(polled.body, mimetype="application/json")
    answer.headers["Cache-Control"] = "private, no-cache"
    answer.set_etag(polled.tag, weak=True)
    answer.make_conditional(request)
    return answer


@blueprint.get("/<id:job_id>/images", responses=answers(ImagePageBody, 200) | NOT_FOUND)
def images(path: JobPath, query: ImagesQuery) -> Response:
    """List the images of a job, a page at a time."""
    return reply(use_cases.images(services(), auth.principal(), path.job_id, query.span))


@blueprint.patch(
    "/<id:job_id>", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT | BODY, openapi_extensions=CHANGE
)
def change(path: JobPath) -> Response:
    """Change pool, priority, urgency, deadline or hold of a job while images of it wait; running ones go on."""
    return reply(use_cases.change(services(), auth.principal(), path.job_id, read_json()))


@blueprint.delete("/<id:job_id>", responses={204: None} | NOT_FOUND | CONFLICT)
def delete(path: JobPath) -> Response:
    """Delete a job and its pictures. Cancel it first if it is running."""
    use_cases.delete(services(), auth.principal(), path.job_id)
    return Response(status=204)


@blueprint.post("/<id:job_id>/cancel", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT)
def cancel(path: JobPath, query: CancelQuery) -> Response:
    """Cancel all images of a job that have not ended, or only those that have not started."""
    return reply(use_cases.cancel(services(), auth.principal(), path.job_id, only_waiting=query.waiting))


@blueprint.post("/<id:job_id>/images/<id:index>/cancel", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT)
def cancel_image(path: ImagePath) -> Response:
    """Cancel one image."""
    return reply(use_cases.cancel(services(), auth.principal(), path.job_id, path.index))


@blueprint.post("/<id:job_id>/retry", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT)
def retry(path: JobPath) -> Response:
    """Queue all failed and cancelled images of a job again, with the same seeds."""
    return reply(use_cases.retry(services(), auth.principal(), path.job_id))


@blueprint.post("/<id:job_id>/images/<id:index>/retry", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT)
def retry_image(path: ImagePath) -> Response:
    """Queue one failed or cancelled image again."""
    return reply(use_cases.retry(services(), auth.principal(), path.job_id, path.index))


@blueprint.post("/<id:job_id>/hold", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT)
def hold(path: JobPath) -> Response:
    """Hold the queued images of a job until it is released; running images go on."""
    return reply(use_cases.hold(services(), auth.principal(), path.job_id))


@blueprint.post("/<id:job_id>/approve", responses=answers(JobBody, 200, 202) | NOT_FOUND | CONFLICT)
def approve(path: JobPath) -> Response:
    """Submit the sweep of which a job is a draft with fewer steps, with all of them; asked again, get the same job."""
    made = use_cases.approve(services(), auth.principal(), path.job_id).job
    answer = reply(made, 200 if made.is_final else 202)
    answer.headers["Location"] = made.links.self
    return answer


@blueprint.post("/<id:job_id>/release", responses=answers(ChangeBody, 200) | NOT_FOUND | CONFLICT)
def release(path: JobPath) -> Response:
    """Queue the held images of a job, for whatever reason they were held."""
    return reply(use_cases.release(services(), auth.principal(), path.job_id))
