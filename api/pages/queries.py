"""Numbers in the addresses of pages: what makes no sense counts as not given, as people edit addresses."""

from __future__ import annotations

from flask import request

from api.requests import MAX_ID


def number(name: str) -> int | None:
    """Return the query's whole number of this name, if it is one that a row could have."""
    given = request.args.get(name, type=int)
    return given if given is not None and 0 < given <= MAX_ID else None
