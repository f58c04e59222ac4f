"""Answers of the server itself, made without a thread and without the application."""

from __future__ import annotations

import json
from http import HTTPStatus

from api.http.problems import PROBLEM_JSON, Problem
from api.security.origin import SECURITY_HEADERS

Headers = list[tuple[bytes, bytes]]


def headers(mimetype: str, size: int, **further: str) -> Headers:
    """Return the headers of an answer of `size` bytes that no cache keeps; `further` are named with underscores."""
    fields = {"content-type": mimetype, "content-length": str(size), "cache-control": "no-store"}
    fields |= {name.replace("_", "-"): value for name, value in further.items()}
    fields |= {name.lower(): value for name, value in SECURITY_HEADERS.items()}
    return [(name.encode(), value.encode()) for name, value in fields.items()]


def problem(status: HTTPStatus, detail: str) -> tuple[Headers, bytes]:
    """Return headers and body that tell what went wrong; the connection ends behind them."""
    content = Problem(title=status.phrase, status=status, detail=detail).model_dump(exclude={"error_id"})
    body = json.dumps(content).encode()
    again = {"retry_after": "5"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return headers(PROBLEM_JSON, len(body), connection="close", **again), body


def raw(status: HTTPStatus, detail: str) -> bytes:
    """Return a whole answer, for a client whose request cannot be read."""
    fields, body = problem(status, detail)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), *(b"%s: %s" % line for line in fields)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
