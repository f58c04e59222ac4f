"""`python -m tests.chaos.worker`: the stub worker, or its supervisor, that dies at the crash points that are armed."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from tests.chaos import points
from worker.__main__ import end, main

MODULE = "tests.chaos.worker"
FOLDER = "CHAOS_FOLDER"


def run() -> int:
    """Do what the arguments ask for, with the crash points in place."""
    folder = points.Folder(Path(os.environ[FOLDER]))
    if "--card" not in sys.argv:
        points.install(folder)
        return main(module=MODULE)
    from tests.support.stub_card import StubCard  # noqa: PLC0415 - the supervisor does without
    from worker.process import run_worker  # noqa: PLC0415

    class Card(StubCard):
        slots = 3

        def render(self, *arguments):
            folder.passed("run.begun")
            rendered = super().render(*arguments)
            folder.passed("run.ended")
            return rendered

    points.install(folder)
    return main(module=MODULE, run_worker=partial(run_worker, make_card=Card))


if __name__ == "__main__":
    end(run())
