"""Pictures as clients send them: base64, bare or as a data URL."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from api.compat.sdapi.asked import wrong

_ADDRESS: Final = re.compile(r"\s*(?:https?|ftp|file):", re.IGNORECASE)
_DATA: Final = re.compile(r"\s*data:[^,]{0,200},", re.IGNORECASE)
_ACCEPTED: Final = "a picture in base64, or a data URL"


def data_url(text: str, name: str) -> str:
    """Return a picture as the farm's own API takes it. Raises Refused for an address, which is never fetched."""
    if _ADDRESS.match(text):
        raise wrong(name, "is an address: the farm fetches nothing from elsewhere", _ACCEPTED)
    return text if _DATA.match(text) else f"data:image/png;base64,{text}"


def decoded(text: str, name: str) -> bytes:
    """Return the bytes of a picture's file. Raises Refused."""
    plain = _DATA.sub("", data_url(text, name), count=1)
    try:
        return base64.b64decode(plain, validate=False)
    except (binascii.Error, ValueError):
        raise wrong(name, "is damaged base64", _ACCEPTED) from None


def encoded(data: bytes) -> str:
    """Return a picture as clients expect it: base64 alone."""
    return base64.b64encode(data).decode()
