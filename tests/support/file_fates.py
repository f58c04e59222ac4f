"""Asked in a confined child, in place of the one that looks into files: the file's name says what happens."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Final

FOUND: Final = {"kind": "vae", "architecture": "sd1", "native_size": None, "reason": None}
_TOO_MUCH: Final = 2**30  # bytes: twice what a child may take


def answer(question: bytes) -> bytes:
    """Return what a file is found to be, unless it ends this process."""
    name = Path(os.fsdecode(question)).name
    if name == "dies":
        os.kill(os.getpid(), signal.SIGBUS)
    if name.startswith("once"):
        try:
            Path(f"{os.fsdecode(question)}.seen").mkdir()
        except FileExistsError:
            return json.dumps(FOUND).encode()
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "hoards":
        return bytes(len(bytearray(_TOO_MUCH)))
    return json.dumps(FOUND).encode()
