from __future__ import annotations

from dataclasses import replace

import numpy as np

from shared.messaging.events import Progress
from shared.params.render import RenderParams
from shared.queue.claim import Claim
from tests.support.waiting import until
from worker.progress.reporter import Reporter


class Heard:
    """Keeps what would go to Redis."""

    def __init__(self):
        self.published, self.previews = [], []

    def publish(self, event):
        self.published.append(event)

    def put_preview(self, job, index, webp):
        self.previews.append((job, index, webp))

    def close(self): ...


CLAIM = Claim(
    image_id=5, job_id=17, index=2, attempt=1, owner="local", checkpoint="c" * 64, cost=1,
    stored=RenderParams(steps=20, seed=7, width=64, height=64, checkpoint="demo [cccccccccc]").model_dump(mode="json"),
    worker_id=3,
)  # fmt: skip


def test_only_the_latest_progress_of_an_image_is_published():
    heard = Heard()
    reporter = Reporter(heard)
    with reporter.progress_of(CLAIM) as progress:
        for step in range(1, 21):
            progress.step(step, 20)
        reporter.start()
        until(lambda: heard.published)
    reporter.stop()
    assert heard.published == [Progress(job=17, index=2, attempt=1, step=20, steps=20, phase="steps")]


def test_nothing_is_said_of_an_image_that_has_ended():
    heard = Heard()
    reporter = Reporter(heard)
    with reporter.progress_of(CLAIM) as progress:
        progress.step(3, 20)
    progress.step(4, 20)
    progress.preview(lambda: np.zeros((8, 8, 3), np.uint8))
    reporter.start()
    reporter.stop()
    assert (heard.published, heard.previews) == ([], [])


def test_previews_are_shown_of_an_image_that_runs():
    heard = Heard()
    reporter = Reporter(heard)
    reporter.start()
    with reporter.progress_of(CLAIM) as progress:
        progress.preview(lambda: np.zeros((8, 8, 3), np.uint8))
        until(lambda: heard.previews)
    reporter.stop()
    ((job, index, webp),) = heard.previews
    assert (job, index, webp[:4]) == (17, 2, b"RIFF")


def test_a_preview_that_waits_goes_with_its_image():
    heard = Heard()
    reporter = Reporter(heard)
    with reporter.progress_of(CLAIM) as progress:
        progress.preview(lambda: np.zeros((8, 8, 3), np.uint8))
    with reporter.progress_of(replace(CLAIM, index=3)) as other:
        other.preview(lambda: np.zeros((8, 8, 3), np.uint8))
        reporter.start()
        until(lambda: heard.previews)
    reporter.stop()
    assert [index for _, index, _ in heard.previews] == [3]
