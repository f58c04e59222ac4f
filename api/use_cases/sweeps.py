"""Use case: a person sees what a sweep would be, before there is a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.schemas.problems import FieldProblem
from api.schemas.sweeps import AxisPreviewBody, SweepPreviewBody
from api.services import Services
from api.use_cases.jobs import admitted, prepared
from shared.accounts.principal import Principal
from shared.admission.axes.request import KEY
from shared.admission.parse import parse
from shared.db.sessions import transact
from shared.errors import FieldError, Refused
from shared.params.job_spec import Axis, JobSpec
from shared.queue.submit import Admission, cost

_FIRST: Final = 12  # images whose titles are listed


def preview(services: Services, who: Principal, given: object) -> SweepPreviewBody:
    """Return the job that `submit` would record of a sweep, and record nothing. Raises Unavailable, NotLooked."""
    try:
        request = parse(given, who.owner, services.limits(who))
    except Refused as refused:
        return _refused((), 0, refused.fields)
    if request.sweep is None and request.is_well_formed:
        missing = FieldError(
            KEY, "is missing", 'an object such as {"axes": [{"field": "steps", "values": "10-50(+10)"}]}'
        )
        return _refused((), 0, [missing])
    request = prepared(services, request)
    axes = request.plan.described if request.plan else ()
    try:
        admission = transact(services.sessions, lambda session: admitted(services, session, request))
    except Refused as refused:
        return _refused(axes, len(request.plan.cells) if request.plan else 0, refused.fields)
    work = sum(cost(cell.params) for cell in admission.cells)
    return _accepted(admission, services.explainer.seconds(work, request.scheduling.pool))


def _accepted(admission: Admission, seconds: float | None) -> SweepPreviewBody:
    spec, count = JobSpec(admission.params, admission.axes), len(admission.cells)
    return SweepPreviewBody(
        images=count,
        draft=_drafted(admission),
        seconds=None if seconds is None else round(seconds, 1),
        axes=_axes(admission.axes),
        differs=sorted({name for cell in admission.cells for name in cell.changes}),
        first=[list(spec.titles(index)) for index in range(min(count, _FIRST))],
        notes=list(admission.notes),
        problems=[],
    )


def _drafted(admission: Admission) -> int:
    """Return how many images are rendered first, as a draft."""
    count, every = len(admission.cells), admission.draft_every
    if admission.full_steps:
        return count
    return -(-count // every) if every > 1 else 0


def _refused(axes: Sequence[Axis], images: int, problems: Sequence[FieldError]) -> SweepPreviewBody:
    told = [FieldProblem(field=one.field, message=one.message, accepted=one.accepted) for one in problems]
    return SweepPreviewBody(
        images=images, draft=0, seconds=None, axes=_axes(axes), differs=[], first=[], notes=[], problems=told
    )


def _axes(axes: Sequence[Axis]) -> list[AxisPreviewBody]:
    return [
        AxisPreviewBody(field=one.field, label=one.label, of=one.of, values=[value.title for value in one.values])
        for one in axes
    ]
