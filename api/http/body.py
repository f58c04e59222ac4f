"""Request bodies: one that cannot be read is refused with the reason, never with a 500."""

from __future__ import annotations

import json
import re
from typing import Final, TypeVar

from flask import Flask, current_app, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from api.http.problems import refused
from api.programs import WEB_UI
from shared.errors import FieldError, Malformed, Refused
from shared.settings import Settings

Body = TypeVar("Body", bound=BaseModel)

_PICTURES: Final = {
    "/jobs": 2, "/from-picture": 1, "/api/v1/jobs": 1, "/api/v1/uploads": 1, "/api/v1/png-info": 1,
    "/api/v1/controlnet/preview": 3, "/api/v1/sweeps/preview": 1, "/v1/images/edits": 2,
    "/replicate/v1/files": 1,
    "/sdapi/v1/txt2img": 4, "/sdapi/v1/img2img": 6, "/sdapi/v1/extra-single-image": 1,
    "/sdapi/v1/extra-batch-images": 8, "/sdapi/v1/png-info": 1, "/sdapi/v1/interrogate": 1,
    "/controlnet/detect": 8,
}  # fmt: skip
"""How many pictures the requests of a path may bring; the form brings a source and its mask, and a
preview of what a control net is given depends on its own picture as well."""

_PREDICTIONS: Final = re.compile("/replicate/v1/(?:.*/)?predictions")
_OF_A_PREDICTION: Final = 2  # pictures: a source and its mask
_PICTURE: Final = re.compile(rb'"(?:picture|image|mask)"\s*:\s*"\s*(?i:data):[^"]*"')
_BARE_PICTURE: Final = re.compile(rb'"(?:data:[^",]{0,99},)?[A-Za-z0-9+/=\\]{1024,}"')
"""A picture at a door whose clients send base64 under many names, with `/` as it is or behind a backslash."""
_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # an unfinished one is scanned only once
_SEPARATORS: Final = (b",", b"[", b"{")  # each value of a list or an object has one before it

_URLENCODED: Final = "application/x-www-form-urlencoded"
_MOST_FIELDS: Final = 1000
"""Of a form; werkzeug bounds the parts of the other kind by as many."""

_MOST_VALUES: Final = 10_000
"""Of one body: a job has some dozens. The errors of a million small ones would take a gigabyte."""

_ACCEPTED: Final = 'a JSON object such as {"prompt": "a lake at dawn"}'


def init_app(app: Flask, settings: Settings) -> None:
    """Limit the size of requests: a small JSON or form, and the files of pictures on the paths that take them."""
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body_bytes, MAX_FORM_MEMORY_SIZE=settings.max_body_bytes)

    def allow() -> None:
        request.max_content_length = most(settings, request.path)
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UnsupportedMediaType("The body must be sent without Content-Encoding.")
        if (
            request.mimetype == _URLENCODED and request.get_data().count(b"&") > _MOST_FIELDS
        ):  # parsed from what is kept
            raise Malformed(f"The form has more than {_MOST_FIELDS:,} fields.")

    app.before_request(allow)


def most(settings: Settings, path: str) -> int:
    """Return how many bytes a request to `path` may bring."""
    return settings.max_body_bytes + _pictures(path) * settings.limits.max_upload_bytes


def _pictures(path: str) -> int:
    return _OF_A_PREDICTION if _PREDICTIONS.fullmatch(path) else _PICTURES.get(path, 0)


def read_file() -> bytes:
    """Return the file that came: a form's field `file`, or the body itself. Raises Refused, RequestEntityTooLarge."""
    if request.mimetype != "multipart/form-data":
        return _read()
    file = request.files.get("file")
    if file is None:
        accepted = "a form with the file in the field `file`, or the file as the body itself"
        raise Refused("The form has no file.", (FieldError("file", "is missing", accepted),))
    data: bytes = file.read()
    return data


def read_json() -> object:
    """Return the body as Python values. Raises Malformed, UnsupportedMediaType, RequestEntityTooLarge.

    NaN and Infinity are let through here, so that the check of the fields can name the one that holds them.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("The body must be sent as Content-Type: application/json.")
    data = _read()
    _check_amount(data)
    try:
        body = json.loads(data)
    except json.JSONDecodeError as error:
        raise _malformed(f"is not JSON from line {error.lineno}, column {error.colno} on") from None
    except UnicodeDecodeError:
        raise _malformed("is not UTF-8 text") from None
    except RecursionError:
        raise _malformed("is nested too deeply") from None
    except ValueError:  # an integer of more digits than Python converts
        raise _malformed("holds a number that is too long") from None
    if not isinstance(body, dict):
        return body
    # Half characters in the names of its fields are spelled out, so that a refusal can name them.
    return {name.encode(errors="backslashreplace").decode(): value for name, value in body.items()}


def read_as(model: type[Body]) -> Body:
    """Return the JSON body as a `model`. Raises as `read_json`, and Refused that names every bad field."""
    return valid(model, read_json())


def valid(model: type[Body], given: object) -> Body:
    """Return what was given as a `model`. Raises Refused that names every bad field."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise refused(error) from None


def _check_amount(data: bytes) -> None:
    """Refuse a body that is too large without its pictures, or has too many values, before it is parsed."""
    most: int = current_app.config["MAX_CONTENT_LENGTH"]
    if len(data) > most:
        picture = _BARE_PICTURE if request.path.startswith(WEB_UI) else _PICTURE
        data = picture.sub(b"", data, count=_pictures(request.path))
    if len(data) > most:
        raise RequestEntityTooLarge
    if _holds_more_than(_MOST_VALUES, data):
        raise _malformed("holds far more values than a job has")


def _holds_more_than(most: int, data: bytes) -> bool:
    """True if JSON has more texts and values than `most`; the rest is not read."""
    seen = place = 0
    for text in _TEXT.finditer(data):
        seen += 1 + sum(data.count(one, place, text.start()) for one in _SEPARATORS)
        place = text.end()
        if seen > most:
            return True
    return seen + sum(data.count(one, place) for one in _SEPARATORS) > most


def _malformed(message: str) -> Malformed:
    return Malformed(f"The body {message}.", (FieldError("body", message, _ACCEPTED),))


def _read() -> bytes:
    """Return the body. Raises RequestEntityTooLarge, before reading if the length is known."""
    data = request.get_data(cache=False)
    request.stream.read(1)  # werkzeug cuts a chunked body at the limit, and says so at the next read only
    return data
