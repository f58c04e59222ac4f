"""Answers to errors: problem+json (RFC 9457) for programs, a page for people, another system's shape at its door."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from urllib.parse import urlencode

import structlog
from flask import Flask, Response, current_app, redirect, render_template, request
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wrappers import Response as AnyResponse

from api.programs import is_program
from api.schemas.problems import FieldProblem
from shared.errors import FarmError, FieldError, Refused, TooManyRequests, TooManyTries, Unauthorized, explain
from shared.wording import message, wanted

log = structlog.get_logger(__name__)

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_SECONDS = 5
_EXTENSION = "stepfarm-shapes"


class Problem(BaseModel):
    """Why a request failed."""

    type: str = "about:blank"
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What went wrong, for people.")
    errors: list[FieldProblem] = Field(default=[], description="Every bad field.")
    error_id: str | None = Field(default=None, description="Id of the error in the API's log.")


Shape = Callable[[Problem], Response]


def init_app(app: Flask, shapes: Mapping[str, Shape]) -> None:
    """Answer every error in the same form, or in that of `shapes`: by the beginning of the path."""
    app.extensions[_EXTENSION] = shapes
    app.register_error_handler(FarmError, _on_farm_error)
    app.register_error_handler(HTTPException, _on_http_exception)
    app.register_error_handler(Exception, _on_unexpected)


def refuse_fields(error: ValidationError) -> Response:
    """Raise Refused with every bad field of a path, a query or a header."""
    raise refused(error)


def refused(error: ValidationError) -> Refused:
    """Return the error that names every bad field."""
    return Refused("The request cannot be accepted.", tuple(map(_field_error, error.errors())))


def _field_error(error: ErrorDetails) -> FieldError:
    return FieldError(".".join(map(str, error["loc"])), message(error), wanted(error))


def _on_farm_error(error: FarmError) -> AnyResponse:
    status = HTTPStatus.SERVICE_UNAVAILABLE if error.retryable else HTTPStatus(error.status)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return _on_unexpected(error)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        log.info("unavailable", method=request.method, path=request.path, reason=explain(error))
    if isinstance(error, Unauthorized) and not is_program():
        return redirect(f"/sign-in?{urlencode({'next': request.full_path if request.method == 'GET' else '/'})}", 303)
    fields = error.fields if isinstance(error, Refused) else ()
    answer = _answer(status, str(error), fields=fields)
    if isinstance(error, (TooManyRequests, TooManyTries)):
        answer.headers["Retry-After"] = str(error.seconds)
    return answer


def _on_http_exception(error: HTTPException) -> AnyResponse:
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:
        return error.get_response()
    detail = error.description or ""
    if isinstance(error, RequestEntityTooLarge):
        detail = f"The body is larger than the {request.max_content_length or 0:,} bytes that this farm accepts here."
    elif type(error).description == detail:  # the library's own sentence, which adds nothing
        detail = "" if not is_program() else detail
    answer = _answer(HTTPStatus(error.code), detail)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            answer.headers[name] = value
    return answer


def _on_unexpected(error: Exception) -> Response:
    error_id = secrets.token_hex(6)
    log.error("request failed", error_id=error_id, method=request.method, path=request.path, exc_info=error)
    return _answer(
        HTTPStatus.INTERNAL_SERVER_ERROR, f"Internal error {error_id}: search the API's log for this id.", error_id
    )


def _answer(
    status: HTTPStatus, detail: str, error_id: str | None = None, fields: tuple[FieldError, ...] = ()
) -> Response:
    problem = Problem(
        title=status.phrase,
        status=status,
        detail=detail,
        errors=[FieldProblem(field=one.field, message=one.message, accepted=one.accepted) for one in fields],
        error_id=error_id,
    )
    answer = _shaped(problem)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        answer.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if status == HTTPStatus.UNAUTHORIZED:
        answer.headers.setdefault("WWW-Authenticate", 'Bearer realm="stepfarm"')
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _shaped(problem: Problem) -> Response:
    """Return an error as those read it who ask for this path."""
    shapes: Mapping[str, Shape] = current_app.extensions[_EXTENSION]
    shape = next((shape for start, shape in shapes.items() if request.path.startswith(start)), None)
    if shape is not None:
        return shape(problem)
    return _json(problem) if is_program() else Response(render_template("error.html", problem=problem), problem.status)


def _json(problem: Problem) -> Response:
    without = {"error_id"} if problem.error_id is None else None
    # The standard library writes what pydantic refuses: half characters that a message quotes from the request.
    return Response(json.dumps(problem.model_dump(exclude=without)), problem.status, mimetype=PROBLEM_JSON)
