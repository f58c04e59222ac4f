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
from shared.queue.transitions import Ended, Finish
from shared.waiting.backoff import Backoff
from worker.context import Worker
from worker.dispatch.claimer import NO_ASSIGNMENT, Assignment, Claimer
from worker.dispatch.coalesce import Coalesce
from worker.dispatch.health import Health
from worker.dispatch.storing import Storing
from worker.engine.failures import without_tracebacks
from worker.in_flight import Cancellation
from worker.progress.reporter import Reporter, Watch
from worker.render.outputs import Result, results

log = structlog.get_logger(__name__)
T = TypeVar("T")

_TRIES: Final = 3  # an image that fails in a way that may pass (a full card) is rendered so often
_OWN_TICKETS_SECONDS: Final = 1.0  # for so long after Celery's a slot takes tickets by itself
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 2.0


class Slots:
    """Renders and commits images in the threads of the pool, each one ticket at a time.

    `on_free` is called whenever a slot is free again that had an image; `on_lost` ends the process when the card is
    lost; `on_storage` is called when the storage goes or comes back.
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
        self._finish = Coalesce(self._finish_all, is_of_one=_may_be_of_one)
        self.health = Health(worker)
        self.storing = Storing(worker, on_storage)
        self._on_free = on_free
        self._on_lost = on_lost

    def consume(self, *, was_passed: bool) -> None:
        """Consume one ticket: render an image, or pass the ticket on once to a worker that should have it, or drop it.

        If its image was soon done the slot takes the next ticket by itself, and so on for a second: Celery's way with
        each costs more than a small image.
        """
        if self._worker.state != WorkerState.READY:
            return
        try:
            ticket = self._run_all(Ticket(was_passed))
            if ticket is None or ticket.was_passed:
                return
            takes_images = self._worker.takes_images
            other = self._claimer.better_worker() if takes_images else self._claimer.other_worker()
        except Unavailable:
            log.warning("no claim: the database is away", worker=self._worker.id)
            return
        if other is not None:
            self._worker.tickets.pass_on(other)

    def _run_all(self, ticket: Ticket) -> Ticket | None:
        """Run the image that `ticket` brings, and those of the tickets that this slot takes then; return the ticket
        that brought none.
        """
        until = time.monotonic() + _OWN_TICKETS_SECONDS
        mine = self._claimer.next(ticket) if self._worker.takes_images else Assignment(ticket, None)
        if mine.claim is None:
            return mine.ticket
        try:
            while mine.claim:
                self.run(mine.claim)
                mine = self._claimer.next() if time.monotonic() < until else NO_ASSIGNMENT
        finally:
            self._on_free()
        return mine.ticket

    def run(self, claim: Claim) -> None:
        """Render, store and commit `claim`. An error ends this image at most, never the worker."""
        cancel = self._worker.in_flight.open(claim)
        image_log = log.bind(job=claim.job_id, image=claim.image_id, worker=self._worker.id, attempt=claim.attempt)
        image_log.info("image claimed", index=claim.index)
        started = time.monotonic()
        try:
            outcome = self._try(claim, cancel)
        except Cancelled as cancelled:  # whoever took the image away has recorded it
            outcome = f"closed: {cancelled}"
        finally:
            self._worker.in_flight.close(claim)
        image_log.info("image ended", outcome=outcome, seconds=round(time.monotonic() - started, 3))

    def _try(self, claim: Claim, cancel: Cancellation) -> str:
        try:
            picture_bytes = self._render(claim, cancel)
        except Cancelled:
            raise
        except Spoilt as error:
            return self._doubt(claim, cancel, without_tracebacks(error))
        except (RenderError, Unavailable) as error:
            return self._give_up(claim, cancel, without_tracebacks(error))
        except Exception as error:  # the slot's edge: one image must not take the worker along
            log.exception("image failed unexpectedly", job=claim.job_id, image=claim.image_id)
            without_tracebacks(error)
            reason = f"an error of the farm itself: {type(error).__name__}: {error}"
            self.health.failed(claim, reason)
            return self._fail(claim, cancel, reason)
        self.health.rendered()
        return self._end(claim, cancel, ImageState.SUCCEEDED, lambda: self._finish((claim, picture_bytes)))

    def _finish_all(self, pictures: Sequence[tuple[Claim, int]]) -> list[Ended]:
        """Commit the pictures of several slots at once: what syncs the disk, and what SQL costs, is theirs together."""
        return transact(self._autocommit, lambda session: transitions.finish_all(session, pictures))

    def _transact(self, move: Callable[[Session], T]) -> T:
        return transact(self._worker.sessions, move)

    def _render(self, claim: Claim, cancel: Cancellation) -> int:
        self._reporter.image_changed(claim, ImageState.RUNNING)
        with self._reporter.watch(claim) as watch:
            left = self._results(claim, watch, cancel)
            self.storing.put(left, cancel, watch.phase)
        return len(left[0].data)

    def _results(self, claim: Claim, watch: Watch, cancel: Cancellation) -> list[Result]:
        """Return what the image leaves; its pixels are let go, and what it was rendered with."""
        try:
            rendered = self._worker.card.render(claim, watch, cancel)
        finally:
            cancel.forget()
        watch.phase("saving")
        return results(claim, rendered)

    def _give_up(self, claim: Claim, cancel: Cancellation, error: RenderError | Unavailable) -> str:
        """Hand the image back where another attempt may help, else fail it with its reason.

        What is away, the database, the storage or a file, says nothing against the image, nor does it that this version
        cannot read its job: it never runs out of tries for that.
        """
        if self._worker.card.is_lost:
            self._on_lost()
        if isinstance(error, ModelFileAway):
            self._claimer.avoid(claim.checkpoint)
        if isinstance(error, NotUnderstood):
            log.warning("job not understood: left to others", image=claim.image_id, reason=str(error))
            self._worker.unread.add(claim, error.what)
        if isinstance(error, RenderFailed):
            self.health.failed(claim, str(error))
        is_storage_away = isinstance(error, StorageAway) and self.storing.is_away(error)  # no source picture came
        began = not (is_storage_away or isinstance(error, (ModelFileAway, NotUnderstood)))
        reason = str(error) if began and not isinstance(error, Unavailable) else None
        if not error.retryable or (reason and self._is_last_try(claim, cancel)):
            return self._fail(claim, cancel, str(error))
        if reason and self._has_company():
            self._claimer.avoid_like(claim)  # else it would come straight back to where it failed
        is_of_one_object = isinstance(error, StorageError) and not isinstance(error, StorageAway)
        past = self.storing.last_attempt(claim) if is_of_one_object else 0  # only then: it is a request
        return self._hand_back(claim, cancel, reason, f"handed back: {error}", began=began, past=past)

    def _doubt(self, claim: Claim, cancel: Cancellation, error: Spoilt) -> str:
        """Let another worker, if there is one, show once whether the picture or this worker is to blame."""
        if self._failed_attempts(claim, cancel) or not self._has_company():
            return self._fail(claim, cancel, str(error))
        self._claimer.avoid(claim.checkpoint, claim.owner)  # what others ask of it goes on
        self.health.spoilt(claim)
        return self._hand_back(claim, cancel, str(error), f"left to another worker: {error}")

    def _has_company(self) -> bool:
        try:
            return self._claimer.has_company()
        except Unavailable:
            return False

    def _hand_back(  # noqa: PLR0913 - what is to be noted beside it
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
            transitions.hand_back, worker_id=claim.worker_id, images=mine, reason=reason, began=began, past=past
        )
        self._commit(claim, cancel, lambda: self._transact(move))
        self._reporter.image_changed(claim, ImageState.QUEUED)
        return outcome

    def _is_last_try(self, claim: Claim, cancel: Cancellation) -> bool:
        return self._failed_attempts(claim, cancel) + 1 >= _TRIES

    def _failed_attempts(self, claim: Claim, cancel: Cancellation) -> int:
        move = partial(failed_attempts, job_id=claim.job_id, image_id=claim.image_id)
        return self._commit(claim, cancel, lambda: self._transact(move))

    def _fail(self, claim: Claim, cancel: Cancellation, reason: str) -> str:
        move = partial(transitions.fail, claim=claim, reason=reason)
        self._end(claim, cancel, ImageState.FAILED, lambda: self._transact(move))
        return f"failed: {reason}"

    def _end(self, claim: Claim, cancel: Cancellation, state: ImageState, move: Callable[[], Ended]) -> str:
        """Commit the image's end and tell those who watch."""
        ended = self._commit(claim, cancel, move)
        if ended.finish != Finish.REFUSED:
            self._reporter.image_changed(claim, state)
            if ended.job is not None:
                self._reporter.job_changed(claim, ended.job)
        return ended.finish

    def _commit(self, claim: Claim, cancel: Cancellation, move: Callable[[], T]) -> T:
        """Make `move`, again and again while the database is away: a move that got through unheard is understood.

        Raises Cancelled when the image was taken away meanwhile.
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
    """Return whether one image of several may be to blame: a row that others lock, or what nobody thought of."""
    return isinstance(error, TooSlow) or not isinstance(error, Unavailable)
