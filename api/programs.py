"""Which paths programs ask for, and which people do: the path decides, not a header."""

from __future__ import annotations

from typing import Final

from flask import request

OPENAI: Final = "/v1/"
REPLICATE: Final = "/replicate/"
SDAPI: Final = "/sdapi/"
"""How the paths of other systems' doors begin."""

WEB_UI: Final = (SDAPI, "/internal/", "/controlnet/")
"""Where the clients of the web UI look; they know Basic authentication alone."""

_DOORS: Final = ("/api/", OPENAI, REPLICATE, *WEB_UI)
_OF_MACHINES: Final = ("/livez", "/readyz", "/metrics", "/openapi.json")


def is_program() -> bool:
    """True where the answer to this request is read by a program."""
    return request.path.startswith((*_DOORS, *_OF_MACHINES))
