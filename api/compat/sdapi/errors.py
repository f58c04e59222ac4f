"""Errors in the shape that clients of AUTOMATIC1111's web UI read."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from flask import Response
from flask_openapi3.types import ResponseDict
from pydantic import BaseModel, Field

from api.http.problems import Problem


class WebUIErrorBody(BaseModel):
    """An error."""

    error: str = Field(description="The status in words.")
    detail: str = Field(description="For people: what was wrong, and what would be accepted.")
    body: str = ""
    errors: str = Field(description="The bad fields by name, or as `detail`.")


ERRORS: Final[ResponseDict] = {
    str(status): WebUIErrorBody for status in (400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503, 504)
}
"""What every route of this door may answer."""


def shaped(problem: Problem) -> Response:
    """Return an error of the farm in this door's shape."""
    said = [f"{one.field}: {one.message.removesuffix('.')}. Accepted: {one.accepted}." for one in problem.errors]
    detail = " ".join(said) or problem.detail
    body = {"error": problem.title, "detail": detail, "body": "", "errors": detail}
    answer = Response(json.dumps(body), problem.status, mimetype="application/json")
    if problem.status == HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = 'Basic realm="stepfarm", charset="UTF-8"'
    return answer
