"""A slot takes a ticket and carries its image from the claim to the commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import structlog
from sqlalchemy.orm import Session

from shared.db.sessions import autocommit, transact
from shared.db.states import ImageState, WorkerState
from shared.errors import (
    Cancelled,
    ModelFileAway,
    NotUnderstood,
    RenderError,
    RenderFailed,
    Spoilt,
    StorageAway,
    StorageError,
    TooSlow,
    Unavailable,
)
from shared.messaging.tickets import Ticket
from shared.queue import transitions
from shared.queue.claim import Claim
from shared.queue.history import failed_attempts
from shared.queue.transitions import Ended, Finish, Stored
from shared.waiting.backoff import Backoff
from worker.context import Worker
from worker.dispatch.card_shares import CardShares
from worker.dispatch.claimer import NO_ASSIGNMENT, Assignment, Claimer
from worker.dispatch.coalesce import Coalescer
from worker.dispatch.health import Health
from worker.dispatch.storage_writer import StorageWriter
from worker.engine.failures import without_tracebacks
from worker.in_flight import Cancellation
from worker.progress.reporter import ImageProgress, Reporter
from worker.render.outputs import Output, outputs

log = structlog.get_logger(__name__)
T = TypeVar("T")

_TRIES: Final = 3  # of an image that fails in a way that may pass, such as a full card
_OWN_TICKETS_SECONDS: Final = 1.0  # after Celery's ticket a slot takes tickets by itself for so long
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 2.0


class Slots:
    """Runs one image on each thread of the pool.

    `on_free` is called when a slot that had an image is free again, `on_lost` when the card is lost (it ends the
    process), `on_storage` when the storage goes or comes back.
    """

    def __init__(  # noqa: PLR0913 - shared values, and callbacks
        self,
        worker: Worker,
        claimer: Claimer,
        reporter: Reporter,
        *,
        on_free: Callable[[], object],
        on_lost: Callable[[], object],
        on_storage: Callable[[], object] = lambda: None,
    ) -> None:
        self._worker = worker
        self._claimer = claimer
        self._reporter = reporter
        self._autocommit = autocommit(worker.sessions)
        self._card_shares = CardShares()
        self._finish = Coalescer(self._finish_all, is_of_one=_may_be_of_one)
        self.health = Health(worker)
        self.storage_writer = StorageWriter(worker, on_storage)
        self._on_free = on_free
        self._on_lost = on_lost

    def consume(self, *, was_passed: bool) -> None:
        """Consume one ticket: run an image, or pass the ticket on once to a worker that should have it, or drop it.

        If the image was soon done the slot takes the next ticket by itself, and so on for a second: small images take
        less time than Celery needs to bring a ticket.
        """
        if self._worker.state != WorkerState.READY:
            return
        try:
            ticket = self._run_all(Ticket(was_passed))
            other = None if ticket is None or ticket.was_passed else self._other_worker()
        except Unavailable:
            log.warning("no claim: the database is away", worker=self._worker.id)
            return
        if other is not None:
            self._worker.tickets.pass_on(other)

    def _run_all(self, ticket: Ticket) -> Ticket | None:
        """Run the image that `ticket` brings, and those of the tickets that this slot takes then; return the ticket
        that brought no image.
        """
        until = time.monotonic() + _OWN_TICKETS_SECONDS
        taken = self._claimer.next(ticket) if self._worker.takes_images else Assignment(ticket, None)
        if taken.claim is None:
            return taken.ticket
        try:
            while taken.claim:
                self.run(taken.claim)
                taken = self._claimer.next() if time.monotonic() < until else NO_ASSIGNMENT
        finally:
            self._on_free()
        return taken.ticket

    def _other_worker(self) -> int | None:
        return self._claimer.better_worker() if self._worker.takes_images else self._claimer.other_worker()

    def run(self, claim: Claim) -> None:
        """Render, store and commit `claim`. An error ends this image at most, never the worker."""
        cancel = self._worker.in_flight.open(claim)
        image_log = log.bind(job=claim.job_id, image=claim.image_id, worker=self._worker.id, attempt=claim.attempt)
        image_log.info("image claimed", index=claim.index)
        started = time.monotonic()
        try:
            outcome = self._try(claim, cancel)
        except Cancelled as cancelled:  # recorded already by those who took the image away
            outcome = f"closed: {cancelled}"
        finally:
            self._worker.in_flight.close(claim)
            self._card_shares.forget(claim)
            self._claimer.end(claim)
        image_log.info("image ended", outcome=outcome, seconds=round(time.monotonic() - started, 3))

    def _try(self, claim: Claim, cancel: Cancellation) -> str:
        try:
            picture_bytes = self._render(claim, cancel)
        except Cancelled:
            raise
        except Spoilt as error:
            return self._blame_worker_or_fail(claim, cancel, without_tracebacks(error))
        except (RenderError, Unavailable) as error:
            return self._retry_or_fail(claim, cancel, without_tracebacks(error))
        except Exception as error:  # the slot's edge: one image must not end the worker
            log.exception("image failed unexpectedly", job=claim.job_id, image=claim.image_id)
            without_tracebacks(error)
            reason = f"an error of the farm itself: {type(error).__name__}: {error}"
            self.health.failed(claim, reason)
            return self._fail(claim, cancel, reason)
        self.health.rendered()
        stored = Stored(claim, picture_bytes, self._card_shares.seconds(claim))
        return self._end(claim, cancel, ImageState.SUCCEEDED, partial(self._finish, stored))

    def _finish_all(self, pictures: Sequence[Stored]) -> list[Ended]:
        """Commit the pictures of several slots at once, because one statement and one sync of the disk serve all."""
        return transact(self._autocommit, partial(transitions.finish_all, pictures=pictures))

    def _render(self, claim: Claim, cancel: Cancellation) -> int:
        """Render and store the image; return the bytes of its picture."""
        self._reporter.image_changed(claim, ImageState.RUNNING)
        with self._reporter.progress_of(claim) as progress:
            files = self._outputs(claim, progress, cancel)
            self.storage_writer.put(files, cancel, progress.phase)
        return len(files[0].data)

    def _outputs(self, claim: Claim, progress: ImageProgress, cancel: Cancellation) -> list[Output]:
        """Return the image's files; its pixels, and what it was rendered with, are free afterwards."""
        try:
            with self._card_shares.taken_by(claim):
                rendered = self._worker.card.render(claim, progress, cancel)
        finally:
            cancel.forget()
        progress.phase("saving")
        return outputs(claim, rendered)

    def _retry_or_fail(self, claim: Claim, cancel: Cancellation, error: RenderError | Unavailable) -> str:
        """Hand the image back if another attempt may help, else fail it with its reason.

        An outage (of the database, the storage or a file) is not a failed attempt, and neither is a job that this
        version cannot read. An image never runs out of tries because of them.
        """
        if self._worker.card.is_lost:
            self._on_lost()
        if isinstance(error, ModelFileAway):
            self._leave_to_others(claim, error)
        if isinstance(error, NotUnderstood):
            log.warning("job not understood: left to others", image=claim.image_id, reason=str(error))
            self._worker.unreadable_jobs.add(claim, error.what)
        if isinstance(error, RenderFailed):
            self.health.failed(claim, str(error))
        # Of the storage: a source picture that did not come.
        is_storage_away = isinstance(error, StorageAway) and self.storage_writer.is_away(error)
        began = not (is_storage_away or isinstance(error, (ModelFileAway, NotUnderstood)))
        reason = str(error) if began and not isinstance(error, Unavailable) else None
        if not error.retryable or (reason and self._failed_attempts(claim, cancel) + 1 >= _TRIES):
            return self._fail(claim, cancel, str(error))
        if reason and self._has_company():
            self._claimer.avoid_like(claim)  # else it would come straight back to where it failed
        is_of_one_object = isinstance(error, StorageError) and not isinstance(error, StorageAway)
        past = self.storage_writer.last_attempt(claim) if is_of_one_object else 0
        return self._hand_back(claim, cancel, reason, f"handed back: {error}", began=began, past=past)

    def _leave_to_others(self, claim: Claim, error: ModelFileAway) -> None:
        """Leave to other workers what needs the missing file: all images of a checkpoint, else only this job."""
        if error.sha256 == claim.checkpoint:
            self._claimer.avoid(claim.checkpoint)
        else:
            log.warning("model file away: job left to others", job=claim.job_id, reason=str(error))
            self._claimer.avoid_job(claim, str(error))

    def _blame_worker_or_fail(self, claim: Claim, cancel: Cancellation, error: Spoilt) -> str:
        """Have another worker, if there is one, try the image once: it shows whether this worker is to blame."""
        if self._failed_attempts(claim, cancel) or not self._has_company():
            return self._fail(claim, cancel, str(error))
        self._claimer.avoid(claim.checkpoint, claim.owner)  # other owners' images of this checkpoint go on
        self.health.spoilt(claim)
        return self._hand_back(claim, cancel, str(error), f"left to another worker: {error}")

    def _has_company(self) -> bool:
        try:
            return self._claimer.has_company()
        except Unavailable:
            return False

    def _hand_back(  # noqa: PLR0913 - what is recorded beside it
        self,
        claim: Claim,
        cancel: Cancellation,
        reason: str | None,
        outcome: str,
        *,
        began: bool = True,
        past: int = 0,
    ) -> str:
        mine = {claim.image_id: claim.attempt}
        move = partial(
            transitions.hand_back,
            worker_id=claim.worker_id,
            images=mine,
            reason=reason,
            began=began,
            past=past,
            gpu_seconds=self._card_shares.seconds(claim),
        )
        self._commit(claim, cancel, partial(self._transact, move))
        self._reporter.image_changed(claim, ImageState.QUEUED)
        return outcome

    def _failed_attempts(self, claim: Claim, cancel: Cancellation) -> int:
        count = partial(failed_attempts, job_id=claim.job_id, image_id=claim.image_id)
        return self._commit(claim, cancel, partial(self._transact, count))

    def _fail(self, claim: Claim, cancel: Cancellation, reason: str) -> str:
        gpu_seconds = self._card_shares.seconds(claim)
        move = partial(transitions.fail, claim=claim, reason=reason, gpu_seconds=gpu_seconds)
        self._end(claim, cancel, ImageState.FAILED, partial(self._transact, move))
        return f"failed: {reason}"

    def _transact(self, move: Callable[[Session], T]) -> T:
        return transact(self._worker.sessions, move)

    def _end(self, claim: Claim, cancel: Cancellation, state: ImageState, move: Callable[[], Ended]) -> str:
        """Commit the image's end and report it."""
        ended = self._commit(claim, cancel, move)
        if ended.finish != Finish.REFUSED:
            self._reporter.image_changed(claim, state)
            if ended.job is not None:
                self._reporter.job_changed(claim, ended.job)
        return ended.finish

    def _commit(self, claim: Claim, cancel: Cancellation, move: Callable[[], T]) -> T:
        """Make `move`, again and again while the database is away. It may be made twice, if an answer was lost.

        Raises Cancelled if the image was taken away meanwhile.
        """
        backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        while True:
            try:
                return move()
            except Unavailable:
                log.debug("commit waits: the database is away", image=claim.image_id, attempt=claim.attempt)
            if cancel.is_set:
                raise Cancelled("it was taken away while the database was")
            time.sleep(backoff.failed())


def _may_be_of_one(error: BaseException) -> bool:
    """Return whether one image of several may be to blame: a row that others lock, or an unexpected error."""
    return isinstance(error, TooSlow) or not isinstance(error, Unavailable)
