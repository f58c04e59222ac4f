"""The form of a request: JSON values become parameters and scheduling, or are named by their field as wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from shared.admission import names, scheduling
from shared.admission.accepted import accepted
from shared.errors import FieldError, Refused
from shared.media.decode import Picture
from shared.params.partial import rest
from shared.params.render import RenderParams
from shared.params.scheduling import NO_SCHEDULING, Scheduling
from shared.params.table import parameters, siblings
from shared.settings import Limits
from shared.suggest import nearest
from shared.wording import LONGEST, choices, message, spelled

_MOST_ERRORS: Final = 50


@dataclass(frozen=True)
class JobRequest:
    """A job as an owner asks for it, as far as it has the right form, and what is wrong with the rest of it."""

    owner: str
    limits: Limits
    params: RenderParams  # names in their own spelling; defaults in the place of what is wrong
    scheduling: Scheduling
    digest: str  # of parameters and scheduling as they came, before styles and pictures are written in
    problems: tuple[FieldError, ...] = ()
    pictures: Mapping[str, Picture] = field(default_factory=dict)  # those that came as data URLs, by dotted field name


def parse(given: object, owner: str, limits: Limits) -> JobRequest:
    """Return the job that a JSON object asks for. Raises Refused for what is not an object."""
    if not isinstance(given, Mapping):
        raise refused([FieldError("body", f"must be an object, not {spelled(given)}", "an object of parameters")])
    asked, rest, wrong = scheduling.part(given)
    params, problems = _params(rest, limits)
    params = names.spelled(params)
    problems += [*wrong, *names.misnamed(params)]
    return JobRequest(owner, limits, params, asked, digest(params, asked), tuple(problems))


def digest(params: RenderParams, scheduling: Scheduling = NO_SCHEDULING) -> str:
    """Return what tells a request from another under the same idempotency key, as SHA-256 in hexadecimal."""
    parts = [part.model_dump_json(exclude_defaults=True) for part in (params, scheduling)]
    # Without scheduling as it was before there was any, so that keys of that time are still known.
    return hashlib.sha256("".join(parts if scheduling != NO_SCHEDULING else parts[:1]).encode()).hexdigest()


def _params(given: Mapping[str, Any], limits: Limits) -> tuple[RenderParams, list[FieldError]]:
    """Return what of `given` has the right form, defaults in the place of the rest, and what is wrong with that."""
    try:
        return RenderParams.model_validate(given), []
    except ValidationError as error:
        problems = error.errors(include_url=False)
        explained = [_explain(problem, limits) for problem in problems[:_MOST_ERRORS]]
        return rest(given, [problem["loc"] for problem in problems]), explained


def refused(problems: Iterable[FieldError]) -> Refused:
    """Return the refusal with the first problem of each field."""
    first: dict[str, FieldError] = {}
    for problem in problems:
        first.setdefault(problem.field, problem)
    return Refused(f"These parameters cannot be accepted as they are: {', '.join(first)}.", tuple(first.values()))


def _explain(problem: Any, limits: Limits) -> FieldError:  # noqa: ANN401 - pydantic's ErrorDetails
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        known = siblings(name, parameters())
        return FieldError(name[:LONGEST], "is not a parameter", choices(nearest(name, known) or known))
    return FieldError(name, message(problem), accepted(name, limits))
