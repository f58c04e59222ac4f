"""The pages' own files: styles, scripts, the mark. Their address holds a digest of them all, so that browsers keep them
for good and never show yesterday's; scripts that import one another do it relatively and stay in one version.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, send_from_directory

FOLDER: Final = Path(__file__).parents[1] / "static"
YEAR_SECONDS: Final = 365 * 86400
blueprint = Blueprint("assets", __name__)


@blueprint.get("/static/<version>/<path:name>")
def file(version: str, name: str) -> Response:
    """Answer with one file; under an address of another version it may change, and is not kept."""
    is_current = version == digest()
    answer = send_from_directory(FOLDER, name, max_age=YEAR_SECONDS if is_current else 0)
    answer.cache_control.immutable = is_current
    return answer


def address(name: str) -> str:
    """Return where the page finds the file `name`."""
    return f"/static/{digest()}/{name}"


@cache
def digest() -> str:
    """Return what tells these files from other ones: ten characters."""
    files = sorted(path for path in FOLDER.rglob("*") if path.is_file())
    whole = sha256()
    for path in files:
        content = path.read_bytes()
        whole.update(f"{path.relative_to(FOLDER)} {len(content)}\n".encode() + content)
    return whole.hexdigest()[:10]
