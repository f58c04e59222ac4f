"""A change of a job's scheduling: which fields may change, of which form, and which of them are not possible now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.admission import scheduling
from shared.db.states import ImageState
from shared.db.tables import Image
from shared.errors import FieldError, Refused
from shared.params.scheduling import Scheduling
from shared.queue.rescheduling import Change
from shared.settings import Limits
from shared.wording import LONGEST, choices, spelled

FIELDS: Final = ("pool", "priority", "urgent", "expires_at", "hold", "after", "on")
"""What of a job's scheduling can be changed while images of it wait."""
_CHECKED: Final = ("pool", "priority", "urgent", "expires_at")  # the others depend on what the job is now


def parse(given: object) -> Change:
    """Return the change that a JSON object asks for. Raises Refused that names every wrong field."""
    if not isinstance(given, Mapping) or not given:
        what = "changes nothing" if given == {} else f"must be an object, not {spelled(given)}"
        raise _refused([FieldError("body", what, f"an object with {choices(FIELDS)}")])
    wanted, _, problems = scheduling.split({name: given[name] for name in FIELDS if name in given})
    others = [
        FieldError(str(name)[:LONGEST], "cannot be changed", choices(FIELDS)) for name in given if name not in FIELDS
    ]
    if wanted.hold:
        clash = [name for name in ("after", "on") if given.get(name)]
        problems = (
            *problems,
            *(FieldError("hold", f"cannot be combined with {name}", "one of them") for name in clash),
        )
    if problems or others:
        raise _refused([*problems, *others])
    asked: dict[str, Any] = {name: getattr(wanted, name) for name in FIELDS if name in given}
    return Change(**asked, sets_deadline="expires_at" in given)


def check(session: Session, owner: str, job_id: int, wanted: Change, limits: Limits) -> None:
    """Raise Refused if a field is not possible now.

    Its owner may not ask for it, or the deadline has passed or comes before the images of the job are queued.
    """
    given = {name: value for name in _CHECKED if (value := getattr(wanted, name)) is not None}
    found = scheduling.impossible(session, owner, Scheduling(**given), limits)
    problems = [problem for problem in found if problem.field in given]  # its pool may be none that it may choose now
    if wanted.expires_at and wanted.hold is not False and wanted.after is None:  # which ends a hold
        held = select(Image.id).where(Image.job_id == job_id, Image.state == ImageState.HELD)
        if session.scalar(select(held.where(Image.held_until >= wanted.expires_at).exists())):
            problems.append(scheduling.TOO_EARLY)
    if problems:
        raise _refused(problems)


def _refused(problems: list[FieldError]) -> Refused:
    fields = ", ".join(problem.field for problem in problems)
    return Refused(f"The job cannot be changed like this: {fields}.", tuple(problems))
