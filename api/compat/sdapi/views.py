"""Views of this door: how they answer, and those that need no question."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Final

from flask import Response
from flask_openapi3.types import ResponseDict

from api.services import Services, services

JSON: Final[ResponseDict] = {"200": {"description": "As the program answers.", "content": {"application/json": {}}}}


def answered(body: str | Iterable[str]) -> Response:
    """Return the answer of this JSON, or of its parts, which belongs to one owner: caches must not keep it."""
    return Response(body, mimetype="application/json", headers={"Cache-Control": "no-store"})


def as_json(answer: object) -> Response:
    """Return an answer that is small enough to be written at once."""
    return answered(json.dumps(answer))


def answering(name: str, make: Callable[[Services], object], summary: str) -> Callable[[], Response]:
    """Return the view of what is made without a question."""

    def view() -> Response:
        return as_json(make(services()))

    view.__name__, view.__doc__ = name, summary
    return view
