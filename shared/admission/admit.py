"""Admission: a request becomes a job that can be recorded and rendered, or is refused with every bad field at once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace

from sqlalchemy.orm import Session

from shared.admission import backlog, no_effect, outpainting, prompts, ranges, scheduling, sizes, sources, upscaling
from shared.admission.axes import cells
from shared.admission.axes.expand import RANDOM_SEEDS, Ground
from shared.admission.axes.plan import SweepPlan, planned
from shared.admission.axes.wildcards import NO_WILDCARDS, Wildcards
from shared.admission.named_models import NamedModels
from shared.admission.parse import JobRequest, refused
from shared.errors import FieldError
from shared.media import uploads
from shared.media.decode import PictureReader
from shared.models.catalogue import Catalogue
from shared.params import paths
from shared.params.fields import RANDOM_SEED
from shared.params.render import RenderParams
from shared.prompts.styles import Style
from shared.queue.submit import Admission


def prepare(
    request: JobRequest,
    styles: Mapping[str, Style],
    picture_reader: PictureReader | None = None,
    wildcards: Wildcards = NO_WILDCARDS,
) -> JobRequest:
    """Return a request with its pictures decoded by `picture_reader`, its styles in its prompts, and these measured.

    The images of a sweep are planned, each with its own prompts. This can take seconds, so it is done before a
    transaction is opened. Raises Unavailable.
    """
    if picture_reader is not None:
        request = sources.decoded(request, picture_reader)
    params = prompts.styled(request.params, styles, request.limits)
    problems = [*request.problems, *prompts.unknown_styles(request.params, styles)]
    if request.sweep is None:
        problems += prompts.unreadable(params, request.limits)
        return replace(request, params=params, problems=tuple(problems))
    base, steps = request.params, request.params.steps
    draft = request.sweep.draft.steps if request.sweep.draft else None
    if draft is not None:
        base, params = (one.model_copy(update={"steps": draft}) for one in (base, params))
    found = planned(request.sweep, Ground(base, request.limits, styles, wildcards))
    problems += [*found.problems, *_draft(draft, steps, found.plan)]
    full = None if draft is None else steps
    return replace(request, params=params, problems=tuple(problems), plan=found.plan, full_steps=full)


def _draft(draft: int | None, steps: int, plan: SweepPlan) -> Iterator[FieldError]:
    """Yield why the pictures of a sweep cannot first be rendered with `draft` steps; None: nobody asks for that."""
    if draft and draft >= steps:
        yield FieldError("sweep.draft.steps", f"is {draft}, and the pictures have {steps} steps", "fewer steps")
    if draft and any("steps" in cell.varied for cell in plan.cells):
        yield FieldError("sweep.draft.steps", "does not go with an axis that varies the steps", "every, as 4")


def admit(session: Session, request: JobRequest, catalogue: Catalogue) -> Admission:
    """Return the job that a prepared request asks for; its names are looked up in `catalogue`.

    Its parameters are complete: seeds are drawn, the size is the checkpoint's own (in a source's proportions), model
    files go by their titles, pictures are uploads (those that came with the request have still to be kept).
    Raises Refused that names every bad field.
    """
    if upscaling.is_wanted(request):
        return upscaling.admitted(session, request, catalogue)
    if request.plan is not None:
        return _sweep(session, request, request.plan, catalogue)
    owner, limits = request.owner, request.limits
    named = NamedModels.found(catalogue, request.params, limits)
    source = sizes.of_source(session, request)
    native = sizes.native(named.checkpoint)
    size = sizes.resolved(request.params, source, native, limits)
    params = _completed(request.params, named.titles, size)
    problems = [
        *request.problems,
        *named.problems,
        *outpainting.impossible(request.params, source, limits),
        *ranges.beyond(params, limits),
        *_around(session, request),
    ]
    if problems or named.models is None:
        raise refused(problems)
    note = sizes.explanation(request.params, size, source, native, limits)
    notes = (*([note] if note else []), *named.notes, *no_effect.notes(params, named.architectures))
    return Admission(owner, params, named.models, request.scheduling, request.digest, notes)


def _sweep(session: Session, request: JobRequest, plan: SweepPlan, catalogue: Catalogue) -> Admission:
    """Return the job of a sweep. Raises Refused that names every bad field, and the first ones of its images."""
    source = sizes.of_source(session, request)
    found = cells.admitted(plan, request.params, source, catalogue, request.limits)
    problems = [*request.problems, *found.problems, *_around(session, request)]
    if plan.request.draft and (others := request.scheduling.holds):
        problems.append(FieldError("sweep.draft", f"cannot be combined with {others[0]}", "one of them"))
    if problems or found.models is None:
        raise refused(problems)
    return Admission(
        request.owner,
        found.params,
        found.models,
        request.scheduling,
        request.digest,
        found.notes,
        axes=found.axes,
        cells=found.cells,
        seeds=plan.request.seeds,
        draft_every=(plan.request.draft and plan.request.draft.every) or 1,
        full_steps=request.full_steps,
    )


def _around(session: Session, request: JobRequest) -> list[FieldError]:
    """Return what is wrong with a request apart from its parameters: pictures, scheduling, too many jobs."""
    return [
        *sources.missing(session, request),
        *uploads.without_room(session, request.owner, request.pictures, request.limits),
        *scheduling.impossible(session, request.owner, request.scheduling, request.limits),
        *backlog.too_many(session, request.owner, request.limits),
    ]


def _completed(params: RenderParams, titles: Mapping[str, str], size: sizes.Size) -> RenderParams:
    """Return the parameters with seeds drawn, this size and these titles of model files, by dotted field name."""
    seeds = ["seed", "noise.variation_seed"] if params.noise.variation_strength > 0 else ["seed"]
    drawn = {path: secrets.randbelow(RANDOM_SEEDS) for path in seeds if paths.get(params, path) == RANDOM_SEED}
    return paths.replaced(params, {**titles, **drawn, "width": size[0], "height": size[1]})
