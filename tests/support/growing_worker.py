"""`python -m tests.support.growing_worker`: a worker with the stub card whose first process seems to grow.

It grows by 1 GB an image, and four images are enough to see it. GROWN names the file by which the next process knows.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from shared.queue.claim import Claim
from tests.support.stub_card import StubCard
from worker import process
from worker.__main__ import end, main
from worker.dispatch import creep
from worker.in_flight import Cancellation
from worker.process import run_worker
from worker.progress.reporter import ImageProgress
from worker.render import host_memory
from worker.renderer import Rendered

GIB = 2**30
grown = 0  # bytes


class GrowingCard(StubCard):
    """Takes memory for each image and never gives it back."""

    def render(self, claim: Claim, progress: ImageProgress, cancel: Cancellation) -> Rendered:
        rendered = super().render(claim, progress, cancel)
        global grown  # noqa: PLW0603 - of the process, as its memory is
        grown += GIB
        return rendered


def _card() -> type[StubCard]:
    mark = Path(os.environ["GROWN"])
    if mark.exists():
        return StubCard
    mark.touch()
    return GrowingCard


if __name__ == "__main__":
    creep.IMAGES, creep.SETTLED, creep.SAMPLES = 4, 1, 1  # type: ignore[misc]
    process.Creep = partial(creep.Creep, measure=lambda: host_memory.own_bytes() + grown)  # type: ignore[assignment,misc]
    run = lambda launch: run_worker(launch, make_card=_card())  # noqa: E731 - only a worker's process asks for a card
    end(main(module="tests.support.growing_worker", run_worker=run))
