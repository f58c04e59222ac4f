"""The experiments of the page of lessons: started, and each owner's latest of each."""

from __future__ import annotations

from collections.abc import Mapping

from api.schemas.jobs import JobBody
from api.services import Services
from api.use_cases import jobs
from api.use_cases.jobs import Submitted
from shared.accounts.principal import Principal
from shared.db.sessions import transact
from shared.jobs.lessons import BY_NAME, Lesson
from shared.queue import queries
from shared.queue.queries import MOST_IMAGES, Span


def run(services: Services, who: Principal, lesson: Lesson, checkpoint: str, other: str) -> Submitted:
    """Submit an experiment. Raises as `jobs.submit`."""
    return jobs.submit(services, who, lesson.request(checkpoint, other), lesson=lesson.name)


def latest(services: Services, who: Principal) -> Mapping[str, JobBody]:
    """Return the owner's latest job of each experiment, by its name, with all images; without those never run."""
    found = transact(services.sessions, lambda session: queries.latest_of_lessons(session, who.owner, BY_NAME))
    return {name: jobs.job(services, who, job_id, Span(limit=MOST_IMAGES)) for name, job_id in found.items()}
