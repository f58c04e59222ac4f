"""`python -m tests.chaos.worker`: the stub worker, or its supervisor, that dies at the crash points that are armed."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from shared import settings
from shared.errors import Unavailable
from tests.chaos import points
from tests.support.stub_card import StubCard
from worker import process
from worker.__main__ import end, main
from worker.maintenance import process as maintenance
from worker.maintenance import tasks
from worker.maintenance.scheduler import ScheduledChore

MODULE = "tests.chaos.worker"
FOLDER = "CHAOS_FOLDER"
DELIVER_SECONDS = 0.3


def run() -> int:
    """Do what the arguments ask for, with the crash points in place."""
    folder = points.install(Path(os.environ[FOLDER]))

    class Card(StubCard):
        slots = 3

        def render(self, *arguments):
            folder.passed("run.begun")
            rendered = super().render(*arguments)
            folder.passed("run.ended")
            return rendered

    if "--card" in sys.argv:
        threading.Thread(target=deliver, daemon=True).start()
    return main(module=MODULE, run_worker=partial(process.run_worker, make_card=Card))


def deliver() -> None:
    """Do one chore, as a process of its own would: one for each plan would only cost more."""
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
