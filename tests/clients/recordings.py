"""Requests that were recorded from other people's clients: tests/data/clients, a file a client."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "data" / "clients"
_NAME = re.compile(rb'name="([^"]+)"')


def kept(client: str) -> dict[str, Any]:
    """Return what is kept of a client: its version, and its requests in order."""
    found: dict[str, Any] = json.loads((FOLDER / f"{client}.json").read_text())
    return found


def body(request: dict[str, Any]) -> bytes:
    return base64.b64decode(request["base64"]) if "base64" in request else request["body"].encode()


def parts(request: dict[str, Any]) -> tuple[str, str, list[str]]:
    """Return how a request asks: its method, its path, and the names of the fields of its body."""
    content = body(request)
    if request["headers"].get("content-type", "").startswith("multipart/"):
        names = [name.decode() for name in _NAME.findall(content)]
    else:
        names = list(json.loads(content)) if content else []
    return request["method"], re.sub(r"\d+", "0", request["path"]), sorted(names)
