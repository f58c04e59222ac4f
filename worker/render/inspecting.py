"""Asked in a confined child: what a model file is. Importing this takes seconds, which count for no file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from worker.engine.loading import inspect


def answer(question: bytes) -> bytes:
    """Return, as JSON, what the file at the path `question` is."""
    return json.dumps(asdict(inspect.inspect(Path(os.fsdecode(question))))).encode()
