"""The form of a request: JSON values become parameters and scheduling, or are named by their field as wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from shared.admission import names, scheduling
from shared.admission.accepted import accepted
from shared.admission.axes import request as sweeps
from shared.admission.axes.plan import SweepPlan
from shared.admission.axes.request import SweepRequest
from shared.errors import FieldError, Refused
from shared.media.decode import Picture
from shared.params.partial import readable
from shared.params.paths import field_name
from shared.params.render import RenderParams
from shared.params.scheduling import NO_SCHEDULING, Scheduling
from shared.params.table import parameters, siblings
from shared.settings import Limits
from shared.suggest import nearest
from shared.wording import LONGEST, choices, message, spelled

_MOST_ERRORS: Final = 50


@dataclass(frozen=True)
class JobRequest:
    """A job as an owner requests it: the values of the right form, and the problems of all others."""

    owner: str
    limits: Limits
    params: RenderParams  # names in their own spelling; defaults in the place of wrong values
    scheduling: Scheduling
    digest: str  # of parameters and scheduling as they came, before styles and pictures are written in
    problems: tuple[FieldError, ...] = ()
    is_well_formed: bool = True  # every value has the right form, so the digest is that of the whole request
    pictures: Mapping[str, Picture] = field(default_factory=dict)  # those that came as data URLs, by dotted field name
    sweep: SweepRequest | None = None
    plan: SweepPlan | None = None  # the images of the sweep, once the request is prepared
    full_steps: int | None = None  # of a sweep whose draft has fewer


def parse(given: object, owner: str, limits: Limits) -> JobRequest:
    """Return the job that a JSON object requests. Raises Refused if it is not an object."""
    if not isinstance(given, Mapping):
        raise refused([FieldError("body", f"must be an object, not {spelled(given)}", "an object of parameters")])
    wanted, rest, wrong = scheduling.split(given)
    rest, sweep, wrong_sweep = sweeps.split(rest)
    params, problems = _params(rest, limits)
    params = names.spelled(params)
    malformed = [*problems, *wrong, *wrong_sweep]
    problems = [*malformed, *names.misnamed(params)]
    asked = digest(params, wanted, sweep)
    wanted = scheduling.in_open_pool(wanted, limits.of_owner.pools)
    return JobRequest(owner, limits, params, wanted, asked, tuple(problems), not malformed, sweep=sweep)


def digest(params: RenderParams, scheduling: Scheduling = NO_SCHEDULING, sweep: SweepRequest | None = None) -> str:
    """Return the SHA-256 by which requests under the same idempotency key are compared."""
    # What a request does not have is not digested: keys of versions that did not know it are still known.
    parts = (params, None if scheduling == NO_SCHEDULING else scheduling, sweep)
    given = [part.model_dump_json(exclude_defaults=True) for part in parts if part is not None]
    return hashlib.sha256("".join(given).encode()).hexdigest()


def _params(given: Mapping[str, Any], limits: Limits) -> tuple[RenderParams, list[FieldError]]:
    """Return the parameters with defaults in the place of values of a wrong form, and the problems of these."""
    try:
        return RenderParams.model_validate(given), []
    except ValidationError as error:
        problems = error.errors(include_url=False)
        explained = [_explain(problem, limits) for problem in problems[:_MOST_ERRORS]]
        return readable(given, [problem["loc"] for problem in problems]), explained


def refused(problems: Iterable[FieldError]) -> Refused:
    """Return the refusal with the first problem of each field."""
    first: dict[str, FieldError] = {}
    for problem in problems:
        first.setdefault(problem.field, problem)
    return Refused(f"These parameters cannot be accepted as they are: {', '.join(first)}.", tuple(first.values()))


def _explain(problem: Any, limits: Limits) -> FieldError:  # noqa: ANN401 - pydantic's ErrorDetails
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        known = siblings(field_name(name), parameters()) or siblings("", parameters())  # a key may hold dots itself
        return FieldError(name[:LONGEST], "is not a parameter", choices(nearest(name, known) or known))
    return FieldError(name, message(problem), accepted(name, limits))
