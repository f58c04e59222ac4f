"""`python -m worker.check`: says what model files are, for `farm models check`.

It reads one JSON line a file, `{"path": …, "place": …}`, and answers each with one: `{"report": …}`, or `{"error": …}`
if no file can be read at all. The files are read by a confined child of its own, which a bad one may end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from shared.errors import NotConfined
from shared.models.report import FileReport
from worker.render.inspector import Inspector


def answer(questions: IO[str], answers: IO[str], inspector: Inspector) -> None:
    """Answer every question until there are no more."""
    try:
        for question in questions:
            answers.write(f"{json.dumps(_checked(json.loads(question), inspector))}\n")
            answers.flush()
    finally:
        inspector.close()


def _checked(asked: Mapping[str, str], inspector: Inspector) -> dict[str, Any]:
    try:
        return {"report": asdict(FileReport.of(Path(asked["path"]), asked["place"], inspector))}
    except NotConfined as error:
        return {"error": str(error)}


if __name__ == "__main__":
    answer(sys.stdin, sys.stdout, Inspector())
