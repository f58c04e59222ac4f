"""Texts are sent compressed to those who can read that; pictures and event streams are sent as they are.

What a stranger can have a page repeat stands beside its token of forms, but no stranger can have the browser fetch a
page with its cookie (SameSite=Strict, `api.security.origin`), and so none can try the token out by the length of the
answer.
"""

from __future__ import annotations

import gzip
from typing import Final

from flask import Flask, Response, request

LEAST_BYTES: Final = 1024
_MOST_BYTES: Final = 2**23  # of one answer: what is longer is sent as it is
_LEVEL: Final = 5
_MIMETYPES: Final = ("text/", "application/json", "application/problem+json", "application/javascript", "image/svg+xml")
_STREAM: Final = "text/event-stream"


def init_app(app: Flask) -> None:
    """Compress what all other steps have made; so this comes before them, as Flask takes the last one first."""
    app.after_request(_compress)


def _compress(answer: Response) -> Response:
    if not _is_text(answer):
        return answer
    answer.vary.add("Accept-Encoding")
    if request.accept_encodings.quality("gzip") <= 0:
        return answer
    answer.direct_passthrough = False  # a file is read
    answer.set_data(gzip.compress(answer.get_data(), _LEVEL, mtime=0))
    answer.headers["Content-Encoding"] = "gzip"
    tag, is_weak = answer.get_etag()
    if tag and not is_weak:
        answer.set_etag(tag, weak=True)  # the same thing in other bytes
    return answer


def _is_text(answer: Response) -> bool:
    """True where an answer is whole, a text, and of a size that is worth it."""
    mimetype = answer.mimetype or ""
    if answer.status_code == 206 or mimetype == _STREAM or not mimetype.startswith(_MIMETYPES):
        return False
    # what is made while it is sent would all be made for its length
    size = (answer.calculate_content_length() if answer.is_sequence else None) or answer.content_length or 0
    return "Content-Encoding" not in answer.headers and LEAST_BYTES <= size <= _MOST_BYTES
