"""A sweep whose draft was approved: the same images with all their steps, without anything being drawn again."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.accounts.scope import Scope
from shared.admission import backlog, renewal
from shared.db.tables import Image, Job
from shared.errors import Conflict
from shared.models.model_set import ModelSet
from shared.params.scheduling import Scheduling
from shared.queue import queries
from shared.queue.queries import MOST_IMAGES, Span
from shared.queue.submit import Admission, Cell
from shared.settings import Limits


def in_full(session: Session, whose: Scope, job_id: int, limits: Limits) -> Admission:
    """Return the sweep of which a job is a draft with fewer steps.

    Its images differ as those of the draft do: prompts that were drawn, seeds and model files are the same. What its
    owner may not do any more is refused as in a submission. Raises NotFound, Conflict if the job is no such draft,
    Refused.
    """
    draft = queries.job(session, whose, job_id, Span(limit=MOST_IMAGES))
    row = session.get_one(Job, job_id)
    sweep = draft.spec.sweep
    if draft.unknown or sweep is None or sweep.full_steps is None:
        raise Conflict(f"Job {job_id} is not a draft with fewer steps.")
    backlog.check(session, draft.owner, limits)
    steps = {"steps": sweep.full_steps}
    query = select(Image.index.label("at"), Image.models).where(Image.job_id == job_id)
    of_images: dict[int, Any] = {row.at: row.models for row in session.execute(query)}
    cells = [
        Cell(
            dict(draft.spec.changes[image.index]),
            draft.spec.image(image.index).model_copy(update=steps),
            ModelSet.from_stored(of_images[image.index]) if of_images[image.index] else None,
        )
        for image in draft.images
    ]
    admission = Admission(
        draft.owner,
        draft.params.model_copy(update=steps),
        ModelSet.from_stored(row.models),
        Scheduling(pool=draft.pool, priority=draft.priority, urgent=draft.urgent),
        request=f"draft {job_id}",
        axes=sweep.axes,
        cells=tuple(cells),
        seeds=sweep.seeds,
        language=sweep.language,
        lesson=row.lesson,
    )
    images = ((cell.params, cell.models or admission.models) for cell in cells)
    renewal.check(session, draft.owner, admission.scheduling, images, limits)
    return admission
