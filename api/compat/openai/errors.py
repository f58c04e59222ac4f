"""Errors in the shape that clients of OpenAI's API read."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

from flask import Response
from flask_openapi3.types import ResponseDict
from pydantic import BaseModel, Field

from api.http.problems import Problem

_NAMES: Final = {
    "width": "size",
    "height": "size",
    "count": "n",
    "format": "output_format",
    "img2img.picture": "image",
    "img2img.denoising": "strength",
    "img2img.mask.picture": "mask",
    "file_quality": "output_compression",
}
"""What the farm calls a field, and this door otherwise."""

_CODES: Final = {401: "invalid_api_key", 404: "not_found", 413: "request_too_large", 429: "rate_limit_exceeded"}


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="For people: what was wrong, and what would be accepted.")
    type: str = Field(description="`invalid_request_error`, `requests` (too many) or `server_error`.")
    param: str | None = Field(description="The first bad field.")
    code: str | None


class OpenAIErrorBody(BaseModel):
    """An error."""

    error: ErrorDetail


ERRORS: Final[ResponseDict] = {
    str(status): OpenAIErrorBody for status in (400, 401, 403, 404, 409, 413, 415, 429, 500, 503, 504)
}
"""What every route of this door may answer."""


def shaped(problem: Problem) -> Response:
    """Return an error of the farm in this door's shape. What a field was refused for is a 400 here, not a 422."""
    status = problem.status
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST.value
    fields = [(_NAMES.get(one.field, one.field), one) for one in problem.errors]
    message = " ".join(f"{name}: {one.message}. Accepted: {one.accepted}." for name, one in fields)
    return refusal(status, message or problem.detail, param=fields[0][0] if fields else None)


def refusal(status: int, message: str, *, param: str | None = None, code: str | None = None) -> Response:
    """Return the answer to a request that has failed."""
    body = error(status, message, param, code)
    return Response(json.dumps(body), status, mimetype="application/json", headers={"Cache-Control": "no-store"})


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return the body of a failure, as an answer and an event of a stream hold it."""
    kind = "requests" if status == HTTPStatus.TOO_MANY_REQUESTS else "invalid_request_error"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code or _CODES.get(status)}}
