"""Small pictures for schemathesis to send, now and then, where the document asks for the bytes of one."""

from __future__ import annotations

import io

import schemathesis
from hypothesis import strategies
from PIL import Image


def _picture(grey: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (16, 16), (grey, grey, grey, 0)).save(out, "PNG")
    return out.getvalue()


for _kind in ("image/png", "image/jpeg", "image/webp"):
    schemathesis.openapi.media_type(_kind, strategies.sampled_from([_picture(0), _picture(200), b"", b"no picture"]))
