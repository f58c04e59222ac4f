"""Replicate's predictions: a job is a prediction, a checkpoint a model with one version."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from typing import Final

from flask import Response, request
from pydantic import BaseModel, ConfigDict, Field

from api.compat.models import known
from api.compat.replicate import models
from api.compat.replicate import request as asked
from api.compat.replicate.files import FileBody
from api.compat.replicate.models import ModelPage, ReplicateModelBody, VersionBody, VersionPage
from api.compat.replicate.prediction import PREFIX, PredictionBody, PredictionPage
from api.compat.replicate.request import PredictionRequest
from api.compat.replicate.stream import PredictionEvents
from api.http.body import read_json
from api.http.later import answer_later
from api.http.openapi import (
    BODY,
    EVERYWHERE,
    NOT_FOUND,
    PICTURE_BYTES,
    TOO_LARGE,
    Document,
    answers,
    content,
    door,
    reference,
)
from api.http.parameters import MAX_WAIT_SECONDS, JobPath, idempotency_key, wait_seconds
from api.http.responses import reply
from api.http.watch import Watch
from api.security import auth
from api.services import services
from api.use_cases import images, jobs
from shared.errors import Conflict, FieldError, Refused, Unavailable
from shared.params.fields import MAX_ID

_WAIT: Final = re.compile(r"(?:^|,)\s*wait\s*(?:,|$)", re.IGNORECASE)
_PAGE: Final = 50
_CREATE: Final[Document] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": reference(PredictionRequest.__name__)}},
    }
}
_FILE: Final[Document] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"content": {"type": "string", "format": "binary"}},
                    "required": ["content"],
                },
                "encoding": {"content": PICTURE_BYTES},
            }
        },
    }
}
_CREATED: Final = answers(PredictionBody, 201) | BODY
_EVENTS: Final = content("text/event-stream", "`output` events with links, then `done`, or `error` before it.")

blueprint = door("Replicate", __name__, PREFIX, EVERYWHERE, (PredictionRequest,))


class ModelPath(BaseModel):
    """Path of a model."""

    owner: str = Field(description="Any.")
    name: str = Field(description="A checkpoint's name.")


class VersionPath(ModelPath):
    """Path of a model's version."""

    version: str = Field(description="The checkpoint's SHA-256, or how it begins.")


class PredictionsQuery(BaseModel):
    """Which predictions to list."""

    model_config = ConfigDict(extra="ignore")

    cursor: int | None = Field(default=None, ge=1, le=MAX_ID, description="As `next` of the page before has it.")


@blueprint.post("/predictions", responses=_CREATED, openapi_extensions=_CREATE)
def create() -> Response:
    """Make a prediction with a version; `Prefer: wait` answers when it has ended, or after some seconds."""
    wanted = asked.prediction(read_json())
    return _created(wanted, (wanted.version or "").rpartition(":")[2])


@blueprint.post("/models/<owner>/<name>/predictions", responses=_CREATED, openapi_extensions=_CREATE)
def create_with_model(path: ModelPath) -> Response:
    """Make a prediction with a model; one that the farm does not know means its first checkpoint."""
    return _created(asked.prediction(read_json()), path.name)


@blueprint.post("/deployments/<owner>/<name>/predictions", responses=_CREATED, openapi_extensions=_CREATE)
def create_with_deployment(path: ModelPath) -> Response:
    """Make a prediction with a deployment, which is a model here."""
    return _created(asked.prediction(read_json()), path.name)


@blueprint.get("/predictions", responses=answers(PredictionPage, 200))
def predictions(query: PredictionsQuery) -> Response:
    """List the predictions, the latest first."""
    page, root = jobs.jobs(services(), auth.principal(), [], query.cursor, _PAGE), _root()
    following = f"{root}{PREFIX}/predictions?cursor={page.next}" if page.next else None
    return reply(PredictionPage(next=following, results=[PredictionBody.from_job(job, root) for job in page.jobs]))


@blueprint.get("/predictions/<id:job_id>", responses=answers(PredictionBody, 200) | NOT_FOUND)
def prediction(path: JobPath) -> Response:
    """Get a prediction."""
    return _now(path.job_id)


@blueprint.post("/predictions/<id:job_id>/cancel", responses=answers(PredictionBody, 200) | NOT_FOUND)
def cancel(path: JobPath) -> Response:
    """Cancel a prediction; one that has ended stays as it is."""
    with suppress(Conflict):
        jobs.cancel(services(), auth.principal(), path.job_id)
    return _now(path.job_id)


@blueprint.get("/predictions/<id:job_id>/stream", responses=_EVENTS | NOT_FOUND)
def stream(path: JobPath) -> Response:
    """Follow a prediction until it has ended."""
    farm, who = services(), auth.principal()
    jobs.state(farm, who, path.job_id)
    events = PredictionEvents(farm, who, Watch.follow(farm, who, path.job_id), _root())
    answer = Response(events, mimetype="text/event-stream", direct_passthrough=True)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Accel-Buffering"] = "no"  # nginx would delay events until its buffer is full
    return answer


@blueprint.get("/models", responses=answers(ModelPage, 200))
def list_models() -> Response:
    """List the checkpoints that can be used."""
    return reply(models.listed(services(), auth.principal(), _root()))


@blueprint.get("/models/<owner>/<name>", responses=answers(ReplicateModelBody, 200) | NOT_FOUND)
def model(path: ModelPath) -> Response:
    """Get a checkpoint."""
    return reply(models.model(services(), auth.principal(), path.owner, path.name, _root()))


@blueprint.get("/models/<owner>/<name>/versions", responses=answers(VersionPage, 200) | NOT_FOUND)
def versions(path: ModelPath) -> Response:
    """List the one version of a model."""
    return reply(models.versions(services(), auth.principal(), path.name))


@blueprint.get("/models/<owner>/<name>/versions/<version>", responses=answers(VersionBody, 200) | NOT_FOUND)
def version(path: VersionPath) -> Response:
    """Get a version of a model."""
    return reply(models.version(services(), auth.principal(), path.name, path.version))


@blueprint.post("/files", responses=answers(FileBody, 201) | TOO_LARGE, openapi_extensions=_FILE)
def upload() -> Response:
    """Upload a picture to start from; its address is what `input.image` takes."""
    file = request.files.get("content")
    if file is None:
        wrong = FieldError("content", "is missing", "a form with the file in the field `content`")
        raise Refused("The form has no file.", (wrong,))
    kept = images.upload(services(), auth.principal(), file.read())
    return reply(FileBody.from_upload(kept, file.filename or "file", _root()), 201)


def _created(wanted: PredictionRequest, name: str) -> Response:
    farm, who = services(), auth.principal()
    waits = _WAIT.search(",".join(request.headers.getlist("Prefer")))  # without a number: a minute
    seconds = MAX_WAIT_SECONDS if waits else wait_seconds()
    given = asked.job(wanted, known(farm, name) if name else None)
    job = jobs.submit(farm, who, given, idempotency_key()).job
    if seconds:
        with suppress(Unavailable):  # too many wait: the client looks again on its own
            return answer_later(Watch.follow(farm, who, job.id, seconds), partial(_waited, job.id))
    return reply(PredictionBody.from_job(job, _root()), 201)


def _waited(job_id: int) -> Response:
    """Return a prediction that was waited for.

    Clients take one that is said to be processing for one whose output is there: while it goes on, it is starting.
    """
    found = PredictionBody.from_job(jobs.job(services(), auth.principal(), job_id), _root())
    return reply(found.model_copy(update={"status": "starting"}) if found.completed_at is None else found, 201)


def _now(job_id: int) -> Response:
    return reply(PredictionBody.from_job(jobs.job(services(), auth.principal(), job_id), _root()))


def _root() -> str:
    return request.host_url.rstrip("/")
