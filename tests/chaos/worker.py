"""`python -m tests.chaos.worker`: the stub worker, or its supervisor, that dies at the crash points that are armed."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.chaos import points
from worker.__main__ import end, main

MODULE = "tests.chaos.worker"
FOLDER = "CHAOS_FOLDER"
DELIVER_SECONDS = 0.3


def run() -> int:
    """Do what the arguments ask for, with the crash points in place."""
    folder = points.Folder(Path(os.environ[FOLDER]))
    if "--card" not in sys.argv:
        points.install(folder)
        return main(module=MODULE)
    from tests.support.stub_card import StubCard  # noqa: PLC0415 - the supervisor does without
    from worker.maintenance import process as maintenance  # noqa: PLC0415
    from worker.process import run_worker  # noqa: PLC0415

    class Card(StubCard):
        slots = 3

        def render(self, *arguments):
            folder.passed("run.begun")
            rendered = super().render(*arguments)
            folder.passed("run.ended")
            return rendered

    points.install(folder)
    threading.Thread(target=deliver, args=[maintenance], daemon=True).start()
    return main(module=MODULE, run_worker=partial(run_worker, make_card=Card))


def deliver(maintenance) -> None:
    """Do one chore, as a process of its own would: to start one for each plan costs more than all that it does."""
    from shared import settings  # noqa: PLC0415 - as above
    from shared.errors import Unavailable  # noqa: PLC0415
    from worker.maintenance import tasks  # noqa: PLC0415
    from worker.maintenance.scheduler import ScheduledChore  # noqa: PLC0415

    chore = tasks.Chore("deliver", DELIVER_SECONDS, tasks.deliver)
    while True:
        with suppress(Unavailable), maintenance.open_context(settings.load()) as context:
            scheduled = ScheduledChore(chore, context)
            while True:
                scheduled.run_once()
                time.sleep(DELIVER_SECONDS)
        time.sleep(DELIVER_SECONDS)


if __name__ == "__main__":
    end(run())
