"""The form of what was given: JSON values become `RenderParams`, and what has the wrong form is told by its field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from shared.admission.accepted import accepted
from shared.errors import FieldError, Refused
from shared.params.partial import rest
from shared.params.render import RenderParams
from shared.params.table import parameters, siblings
from shared.settings import Limits
from shared.suggest import nearest
from shared.wording import LONGEST, choices, message, told

_MOST_ERRORS: Final = 50


def read(given: object, limits: Limits) -> tuple[RenderParams, list[FieldError]]:
    """Return what of `given` has the right form, defaults in the place of the rest, and what is wrong with that.

    Raises Refused for what is no object at all.
    """
    if isinstance(given, RenderParams):
        return given, []
    if not isinstance(given, Mapping):
        raise refused([FieldError("body", f"must be an object, not {told(given)}", "an object of parameters")])
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
        return FieldError(name[:LONGEST], "is no parameter", choices(nearest(name, known) or known))
    return FieldError(name, message(problem), accepted(name, limits))
