"""A request's JSON body, read with distrust: what cannot be read is refused with the reason, never with a 500."""

from __future__ import annotations

import json

from flask import request
from werkzeug.exceptions import UnsupportedMediaType

from shared.errors import FieldError, Malformed

_ACCEPTED = 'a JSON object such as {"prompt": "a lake at dawn"}'


def read_json() -> object:
    """Return the body as Python values. Raises Malformed, UnsupportedMediaType, RequestEntityTooLarge.

    NaN and Infinity are let through here, so that the check of the fields can name the one that holds them.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("The body must be sent as Content-Type: application/json.")
    try:
        return _nameable(json.loads(_read()))
    except json.JSONDecodeError as error:
        raise _malformed(f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except UnicodeDecodeError:
        raise _malformed("is not UTF-8 text") from None
    except RecursionError:
        raise _malformed("is nested too deeply") from None
    except ValueError:  # an integer of more digits than Python converts
        raise _malformed("holds a number that is too long") from None


def _malformed(message: str) -> Malformed:
    return Malformed(f"The body {message}.", (FieldError("body", message, _ACCEPTED),))


def _read() -> bytes:
    """Return the body, however it is sent. Raises RequestEntityTooLarge, before reading where the length is told."""
    data = request.get_data(cache=False)
    request.stream.read(1)  # werkzeug cuts a chunked body at the limit, and says so at the next read only
    return data


def _nameable(body: object) -> object:
    """Return the body with half characters in the names of its fields spelled out: a refusal can then name them."""
    if not isinstance(body, dict):
        return body
    return {name.encode(errors="backslashreplace").decode(): value for name, value in body.items()}
