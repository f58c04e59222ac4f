"""Polls of a job: programs ask for the same job again and again, and mostly nothing has changed.

Each poll asks PostgreSQL whether the job's rows are still those that were read before (`shared.queue.versions`), so
that no answer is older than its question. Who may see the job is checked each time. Only why a job waits, and how many
images stand before it, hang on other rows: of them a poll may tell what was so a second ago.
"""

from __future__ import annotations

import time
from hashlib import sha256
from typing import Final

from api.kept_jobs import Answer, KeptJob, Running
from api.schemas.jobs import NOTHING_LIVE, JobBody
from api.services import Services
from api.use_cases import jobs
from shared.accounts.principal import Principal
from shared.db.sessions import transact
from shared.db.states import ImageState
from shared.queue import queries
from shared.queue.conflicts import no_job

_WAITING_SECONDS: Final = 1.0
_KEPT_SECONDS: Final = 60.0


def poll(services: Services, who: Principal, job_id: int) -> Answer:
    """Return a job with its first images, as `jobs.job` does. Raises NotFound, Unavailable."""
    version = services.job_versions.ask(job_id)
    if version is None or not who.scope.holds(version.owner):
        raise no_job(job_id)
    if version.fingerprint is None:
        return answer(jobs.job(services, who, job_id))
    kept = services.kept_jobs.find(job_id, version.fingerprint, time.monotonic())
    if kept is None:
        with services.kept_jobs.turn(job_id):  # of those who poll it at once the first one reads it
            kept = services.kept_jobs.find(job_id, version.fingerprint, time.monotonic())
            if kept is None:
                kept = _read(services, who, job_id, version.fingerprint)
                services.kept_jobs.keep(job_id, kept)
    known = kept.known
    return known if isinstance(known, Answer) else answer(jobs.shown(services, known.view, known.waiting))


def _read(services: Services, who: Principal, job_id: int, fingerprint: str) -> KeptJob:
    """Return a job as it is now. If it has changed since `fingerprint` was seen, the next poll sees another."""
    asked_at = time.monotonic()
    view = transact(services.sessions, lambda session: queries.job(session, who.scope, job_id))
    waiting = jobs.waiting(services, view)
    until = asked_at + (_WAITING_SECONDS if waiting else _KEPT_SECONDS)
    whole = answer(JobBody.from_view(view, NOTHING_LIVE, waiting))
    is_running = view.counts[ImageState.RUNNING] > 0
    return KeptJob(fingerprint, until, Running(view, waiting, len(whole.body)) if is_running else whole)


def answer(body: JobBody) -> Answer:
    """Return a job as JSON."""
    written = body.model_dump_json().encode()
    return Answer(written, sha256(written).hexdigest()[:32])
