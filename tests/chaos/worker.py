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
from shared.webhooks import deliveries
from tests.chaos import faults, plans, points
from tests.support.stub_card import StubCard
from worker import process
from worker.__main__ import end, main
from worker.maintenance import process as maintenance
from worker.maintenance import tasks
from worker.maintenance.scheduler import schedule

MODULE = "tests.chaos.worker"
FOLDER = "CHAOS_FOLDER"
CHORES = (tasks.Chore("deliver", 0.5, tasks.deliver), tasks.Chore("webhooks", 0.8, tasks.send_webhooks))
QUICK = {"FIRST_PAUSE_SECONDS": 0.2, "LONGEST_PAUSE_SECONDS": 1.0, "_HOLD_SECONDS": 2 * points.ANSWER_SECONDS}
"""The pauses of messages, in seconds, as leases are in `ground.QUICK`."""
AGAIN_SECONDS = 0.3


def run() -> int:
    """Do what the arguments ask for, with the crash points in place."""
    folder = points.install(Path(os.environ[FOLDER]))
    if fault := os.environ[faults.FAULT]:
        faults.plant(fault)

    class Card(StubCard):
        slots = 3

        def render(self, *arguments):
            folder.passed("run.begun")
            rendered = super().render(*arguments)
            folder.passed("run.ended")
            return rendered

    if plans.SENDER in sys.argv:
        vars(deliveries).update(QUICK)
        threading.Thread(target=do_chores, args=[folder], daemon=True).start()
    return main(module=MODULE, run_worker=partial(process.run_worker, make_card=Card))


def do_chores(folder: points.Folder) -> None:
    """Do some chores in one worker, as a process of their own would: one for each plan would only cost more."""
    while True:
        with suppress(Unavailable), maintenance.open_context(settings.load()) as context:
            for chore in schedule(CHORES, context).values():
                chore.start()
            folder.sends()
            threading.Event().wait()  # until the process ends
        time.sleep(AGAIN_SECONDS)


if __name__ == "__main__":
    end(run())
