"""Answers from bodies and stored files."""

from __future__ import annotations

from typing import Final

from flask import Response, request
from pydantic import BaseModel

from api.use_cases.images import Stored

IMMUTABLE: Final = "private, immutable, max-age=31536000"


def reply(body: BaseModel, status: int = 200) -> Response:
    """Return `body` as JSON. Caches must not keep it: it belongs to one owner, and changes."""
    answer = Response(body.model_dump_json(), status, mimetype="application/json")
    answer.headers["Cache-Control"] = "no-store"
    return answer


def unchanging(stored: Stored, mimetype: str) -> Response:
    """Return stored bytes, which never change; a client that has them gets 304 before they are read."""
    unchanged = request.if_none_match.contains_weak(stored.tag)
    answer = Response(status=304) if unchanged else Response(stored.read(), mimetype=mimetype)
    answer.set_etag(stored.tag)
    answer.headers["Cache-Control"] = IMMUTABLE
    return answer
