"""How a body becomes an answer."""

from __future__ import annotations

from flask import Response
from pydantic import BaseModel


def reply(body: BaseModel, status: int = 200) -> Response:
    """Return `body` as JSON. Nothing is kept by caches on the way: what is told is one owner's, and changes."""
    answer = Response(body.model_dump_json(), status, mimetype="application/json")
    answer.headers["Cache-Control"] = "no-store"
    return answer
