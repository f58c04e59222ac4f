"""OpenAI's Images API: pictures from a prompt, pictures from a picture, and the list of models."""

from __future__ import annotations

from functools import partial
from typing import Final

from flask import Response, request
from pydantic import BaseModel, Field
from werkzeug.exceptions import UnsupportedMediaType

from api.compat.models import known
from api.compat.openai import errors, models
from api.compat.openai.answer import Rendered
from api.compat.openai.document import BODIES, EDIT, GENERATION, PICTURES
from api.compat.openai.failures import failure
from api.compat.openai.models import ModelListBody, OpenAIModelBody
from api.compat.openai.request import Wanted, edit, generation
from api.compat.openai.stream import PictureEvents
from api.http.body import read_json
from api.http.later import answer_later
from api.http.openapi import answers, door
from api.http.parameters import idempotency_key
from api.http.responses import reply
from api.http.watch import Watch
from api.schemas.jobs import API
from api.security import auth
from api.services import services

_FORM: Final = "multipart/form-data"

blueprint = door("OpenAI Images", __name__, "/v1", errors.ERRORS, BODIES)


class ModelPath(BaseModel):
    """Path of a model."""

    model: str = Field(description="A checkpoint's name, path, hash or title.")


@blueprint.get("/models", responses=answers(ModelListBody, 200))
def list_models() -> Response:
    """List the checkpoints that can be used."""
    return reply(models.listed(services(), auth.principal()))


@blueprint.get("/models/<path:model>", responses=answers(OpenAIModelBody, 200))
def model(path: ModelPath) -> Response:
    """Get a checkpoint."""
    return reply(models.one(services(), auth.principal(), path.model))


@blueprint.post("/images/generations", responses=PICTURES, openapi_extensions=GENERATION)
def generate() -> Response:
    """Render pictures from a prompt, and answer when they are complete.

    If the client goes away before, the job is cancelled.
    """
    return _rendered(generation(read_json()))


@blueprint.post("/images/edits", responses=PICTURES, openapi_extensions=EDIT)
def edits() -> Response:
    """Render pictures from a picture, or repaint the part of it where a mask is transparent."""
    if request.mimetype != _FORM:
        raise UnsupportedMediaType(f"The body must be sent as Content-Type: {_FORM}.")
    return _rendered(edit(request.form, request.files))


def _rendered(wanted: Wanted) -> Response:
    farm, who = services(), auth.principal()
    checkpoint = wanted.model and known(farm, wanted.model)
    given = {"checkpoint": checkpoint, **wanted.job} if checkpoint else wanted.job
    watch = Watch.submit(farm, who, given, idempotency_key())
    if wanted.partial_images is None:
        return answer_later(watch, partial(_answer, wanted, watch))
    try:
        events = PictureEvents(watch, Rendered.find(farm, who, wanted, watch.job_id))
    except BaseException:
        watch.close()
        raise
    answer = Response(events, mimetype="text/event-stream", direct_passthrough=True)
    answer.headers["X-Accel-Buffering"] = "no"  # nginx would delay events until its buffer is full
    return _of_job(answer, watch.job_id)


def _answer(wanted: Wanted, watch: Watch) -> Response:
    """Return the pictures of a job that has been waited for, or why there are none."""
    rendered = Rendered.find(services(), auth.principal(), wanted, watch.job_id)
    if rendered.succeeded:
        answer = Response(rendered.body(request.host_url.rstrip("/")), mimetype="application/json")
        return _of_job(answer, watch.job_id)
    failed = failure(rendered.job, watch)
    answer = errors.refusal(failed.status, failed.message, code=failed.code)
    answer.headers["X-Should-Retry"] = str(failed.may_be_repeated).lower()  # else clients render it twice more
    return _of_job(answer, watch.job_id)


def _of_job(answer: Response, job_id: int) -> Response:
    answer.headers["Location"] = f"{API}/jobs/{job_id}"
    answer.headers["Cache-Control"] = "no-store"
    return answer
