"""`python -m tests.chaos.loading_worker`: the stub worker with a card that holds one checkpoint and notes each load."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from shared.db.sessions import Sessions
from shared.settings import Settings
from tests.support.stub_card import StubCard
from worker.__main__ import end, main
from worker.process import run_worker
from worker.render.model_cache import Model, ModelCache
from worker.supervisor.gpus import Address
from worker.supervisor.watchdog import Watchdog

MODULE = "tests.chaos.loading_worker"
NOTES = "LOADING_NOTES"
LOAD_SECONDS = 0.5


class OneCheckpoint(StubCard):
    """Holds one checkpoint; each load takes a while and adds a line to the file that `NOTES` names: PID SHA-256."""

    slots = 4
    load_seconds = LOAD_SECONDS

    def __init__(
        self,
        address: Address | None = None,
        settings: Settings | None = None,
        sessions: Sessions | None = None,
        on_change: Callable[[], object] | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        super().__init__(address, settings, sessions, on_change, watchdog)
        self._residency = ModelCache(self._load, lambda models: len(models) <= 1, on_change)

    def _load(self, model: Model, _) -> str:
        with Path(os.environ[NOTES]).open("a") as notes:
            notes.write(f"{os.getpid()} {model.sha256}\n")
        time.sleep(LOAD_SECONDS)
        return model.sha256


if __name__ == "__main__":
    end(main(module=MODULE, run_worker=partial(run_worker, make_card=OneCheckpoint)))
