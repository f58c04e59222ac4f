"""Images that were admitted before, to be rendered again or in full: their owner may have been limited since."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.admission import scheduling
from shared.admission.named_models import closed_checkpoints
from shared.admission.parse import refused
from shared.db.states import ImageState
from shared.db.tables import Image, Job
from shared.jobs import stored
from shared.models.catalogue import Catalogue
from shared.models.model_set import ModelSet
from shared.params.render import RenderParams
from shared.params.scheduling import Scheduling
from shared.settings import Limits


def check(
    session: Session, owner: str, wanted: Scheduling, images: Iterable[tuple[RenderParams, ModelSet]], limits: Limits
) -> None:
    """Raise Refused if the owner may not ask for these images any more, or not in this place of the queue."""
    problems = scheduling.impossible(session, owner, wanted, limits)
    if (allowed := limits.of_owner.checkpoints) is not None:
        problems = [*closed_checkpoints(Catalogue.read(session, "checkpoint"), images, allowed), *problems]
    if problems:
        raise refused(problems)


def check_again(session: Session, job_id: int, index: int | None, limits: Limits) -> None:
    """Raise Refused if a job's failed and cancelled images, or its image `index`, may not be queued again."""
    job = session.get_one(Job, job_id)
    wanted = select(Image.index.label("at"), Image.changes, Image.models).where(
        Image.job_id == job_id, Image.state.in_([ImageState.FAILED, ImageState.CANCELLED])
    )
    rows = session.execute(wanted if index is None else wanted.where(Image.index == index)).all()
    if not rows:
        return  # which is a conflict
    spec, _ = stored.spec(job.params, {row.at: row.changes for row in rows})
    of_job = job.models or {"checkpoint": job.checkpoint}  # an older version kept no others
    # Only hashes of checkpoints are looked at: a newer version may have stored what is unknown here.
    images = ((spec.image(row.at), ModelSet.model_construct(**(row.models or of_job))) for row in rows)
    check(session, job.owner, Scheduling(pool=job.pool, priority=job.priority, urgent=job.urgent), images, limits)
