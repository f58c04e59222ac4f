"""The experiments of the page of lessons: started, and each owner's latest of each."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.orm import Session

from api.schemas.jobs import JobBody
from api.services import Services
from api.use_cases import jobs
from api.use_cases.jobs import Submitted
from shared.accounts.principal import Principal
from shared.db.sessions import transact
from shared.jobs.lessons import BY_NAME, Lesson
from shared.queue import queries
from shared.queue.queries import MOST_IMAGES, JobView, Span


def run(services: Services, who: Principal, lesson: Lesson, checkpoint: str, other: str) -> Submitted:
    """Submit an experiment. Raises as `jobs.submit`."""
    return jobs.submit(services, who, lesson.request(checkpoint, other), lesson=lesson.name)


def latest(services: Services, who: Principal) -> Mapping[str, JobBody]:
    """Return the owner's latest job of each experiment, by its name, with all images; without those never run."""

    def read(session: Session) -> tuple[dict[str, int], dict[int, JobView]]:
        found = queries.latest_of_lessons(session, who.owner, BY_NAME)
        return found, queries.several(session, who.own, found.values(), Span(limit=MOST_IMAGES))

    found, views = transact(services.sessions, read)
    return {name: jobs.body_of(services, views[job_id]) for name, job_id in found.items() if job_id in views}
