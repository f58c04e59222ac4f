"""What the addresses of pages ask for: what makes no sense counts as not given, as people edit addresses."""

from __future__ import annotations

import re
from typing import Final

from flask import request

from shared.params.fields import MAX_ID

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def number(name: str, least: int = 1) -> int | None:
    """Return the query's whole number of this name, if it is one that a row could have."""
    given = request.args.get(name, type=int)
    return given if given is not None and least <= given <= MAX_ID else None


def owner() -> str | None:
    """Return whose things the query asks for, or `*`; a name that PostgreSQL cannot hold is nobody's."""
    given = request.args.get("owner", "").strip()
    return given if given and "\0" not in given else None


def upload(name: str) -> str | None:
    """Return the query's id of an upload of this name, if it has the form of one."""
    given = request.args.get(name, "")
    return given if _SHA256.fullmatch(given) else None
