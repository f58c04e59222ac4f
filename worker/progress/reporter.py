"""Publishes the progress of images: the latest of each, a few times a second, without making anything wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import Final

from shared.db.states import ImageState, JobState
from shared.messaging.events import Events, ImageChanged, JobChanged, Progress
from shared.queue.claim import Claim
from worker.periodic import Periodic
from worker.progress.preview_queue import MakePreview, PreviewQueue

_SECONDS: Final = 0.25


class Reporter:
    """Publishes progress four times a second, previews as often at most, and changes of state at once."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._lock = Lock()
        self._latest: dict[tuple[int, int], Progress] = {}  # (job, index), not published yet
        self._publisher = Periodic("progress", _SECONDS, self._publish)
        self._previews = PreviewQueue(events.put_preview)

    def start(self) -> None:
        self._publisher.start()
        self._previews.start()

    def stop(self) -> None:
        """Publish what is left and end the threads."""
        self._publisher.stop()
        self._previews.stop()
        self._publish()
        self._events.close()

    @contextmanager
    def progress_of(self, claim: Claim) -> Iterator[ImageProgress]:
        """Report on `claim` within the block; nothing about it is published afterwards."""
        progress = ImageProgress(claim, self._keep_latest, self._previews.put)
        try:
            yield progress
        finally:
            progress.close()
            self._previews.drop(claim)
            with self._lock:
                self._latest.pop((claim.job_id, claim.index), None)

    def image_changed(self, claim: Claim, state: ImageState) -> None:
        self._events.publish(ImageChanged(claim.job_id, claim.index, state))

    def job_changed(self, claim: Claim, state: JobState) -> None:
        self._events.publish(JobChanged(claim.job_id, state))

    def _keep_latest(self, progress: Progress) -> None:
        with self._lock:
            self._latest[progress.job, progress.index] = progress

    def _publish(self) -> None:
        with self._lock:
            latest, self._latest = self._latest, {}
        for progress in latest.values():
            self._events.publish(progress)


class ImageProgress:
    """Reports on one image. Every call returns at once, because some come from the engine's thread."""

    def __init__(
        self,
        claim: Claim,
        report: Callable[[Progress], None],
        put_preview: Callable[[Claim, MakePreview], None],
    ) -> None:
        self._claim = claim
        self._report = report
        self._put_preview = put_preview
        self._is_closed = False
        self._progress = Progress(claim.job_id, claim.index, claim.attempt, 0, claim.params.steps, "waiting")

    def phase(self, phase: str) -> None:
        """Report what is done for the image now: "loading checkpoint …", "steps", "saving"."""
        self._change(replace(self._progress, phase=phase))

    def step(self, step: int, steps: int) -> None:
        """Report that `step` of `steps` are done."""
        self._change(replace(self._progress, step=step, steps=steps, phase="steps"))

    def preview(self, make: MakePreview) -> None:
        """Show the preview that `make` returns, on another thread, unless a later step replaces it first."""
        if not self._is_closed:
            self._put_preview(self._claim, make)

    def close(self) -> None:
        """Report nothing more."""
        self._is_closed = True

    def _change(self, progress: Progress) -> None:
        is_news, self._progress = progress != self._progress, progress
        if is_news and not self._is_closed:
            self._report(progress)
