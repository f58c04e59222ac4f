"""The confined child of the inspector: it tells what a model file is, and where its networks lie.

Its imports take seconds, which no file pays.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from worker.engine.loading import lean_imports

with lean_imports.lean():
    from worker.engine.loading import inspect, places

from worker.render.inspector_question import PLACES


def answer(question: bytes) -> bytes:
    """Return, as JSON, what the file at the path `question` is; or behind `PLACES`, where its networks lie."""
    if question.startswith(PLACES):
        return json.dumps(places.places(Path(os.fsdecode(question.removeprefix(PLACES))))).encode()
    return json.dumps(asdict(inspect.inspect(Path(os.fsdecode(question))))).encode()
