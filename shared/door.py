"""The door: the one place where what somebody asked for becomes parameters that can be stored and rendered.

A refusal names every bad field at once: what was wrong with it, and what would be accepted.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from sqlalchemy.orm import Session

from shared import catalogue
from shared.errors import FieldError, Refused
from shared.nearest import nearest
from shared.params import MAX_SEED, NATIVE_SIZE, RANDOM_SEED, RenderParams
from shared.samplers import SAMPLERS, SCHEDULES
from shared.settings import Limits
from shared.tables import ModelFile
from shared.tokens import MAX_TOKENS, Tokenizer

_USUAL_SIZE: Final = 512  # of a checkpoint that does not say
_RANDOM_SEEDS: Final = 2**32  # few enough digits to read out; any seed up to MAX_SEED can be given
_MOST_ERRORS: Final = 50
_LONGEST: Final = 60  # characters of what was given that a message repeats

_MESSAGES: Final = {
    "string_type": "must be text, not {given}",
    "int_type": "must be a whole number, not {given}",
    "int_from_float": "must be a whole number, not {given}",
    "float_type": "must be a number, not {given}",
    "finite_number": "must be a finite number, not {given}",
    "bool_type": "must be true or false, not {given}",
    "greater_than_equal": "{given} is too small",
    "less_than_equal": "{given} is too large",
    "multiple_of": "{given} is not a multiple of 8",
}
"""By pydantic's type of an error; others are told in pydantic's own words."""


def parse(given: object) -> RenderParams:
    """Return the parameters that a JSON object asks for, names in their own spelling, nothing else filled in yet.

    Raises Refused for what is wrong whatever the farm's limits and checkpoints are.
    """
    params, problems = _read(given, Limits())
    if problems := [*problems, *_misnamed(params)]:
        raise _refused(problems)
    return _spelled(params)


class Admitted(NamedTuple):
    """What may be submitted: complete parameters, and the SHA-256 of the checkpoint that they name."""

    params: RenderParams
    checkpoint: str


def admit(session: Session, given: object, limits: Limits) -> Admitted:
    """Return what a JSON object, or parameters read before, ask for, ready to be submitted.

    Resolved: the seed is drawn, the size is the checkpoint's own, the checkpoint's name has its hash. Raises Refused.
    """
    params, problems = _read(given, limits)
    file = None
    try:
        file = catalogue.resolve(session, params.checkpoint)
    except Refused as refused:
        problems += refused.fields
    resolved = _resolved(params, file)
    problems += [*_misnamed(params), *_beyond(resolved, limits)]
    if problems or file is None or file.sha256 is None:
        raise _refused(problems)
    return Admitted(resolved, file.sha256)


def _read(given: object, limits: Limits) -> tuple[RenderParams, list[FieldError]]:
    """Return what of `given` has the right form, defaults in the place of the rest, and what is wrong with that."""
    if isinstance(given, RenderParams):
        return given, []
    if not isinstance(given, Mapping):
        raise _refused([FieldError("body", f"must be an object, not {_told(given)}", "an object of parameters")])
    try:
        return RenderParams.model_validate(given), []
    except ValidationError as error:
        problems = [_explain(problem, limits) for problem in error.errors()[:_MOST_ERRORS]]
        bad = {problem["loc"][0] for problem in error.errors() if problem["loc"]}
        rest = {name: value for name, value in given.items() if name not in bad}
        return RenderParams.model_validate(rest), problems


def _explain(problem: Any, limits: Limits) -> FieldError:  # noqa: ANN401 - pydantic's ErrorDetails
    field = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        known = nearest(field, RenderParams.model_fields) or list(RenderParams.model_fields)
        return FieldError(field[:_LONGEST], "is no parameter", " or ".join(known))
    told = problem["msg"].removeprefix("Value error, ")
    message = _MESSAGES.get(problem["type"], told).format(given=_told(problem["input"]))
    return FieldError(field, message, _accepted(field, limits))


def _misnamed(params: RenderParams) -> Iterator[FieldError]:
    """Yield what is wrong with sampler and schedule."""
    sampler, schedule = _spelling(params.sampler, SAMPLERS), _spelling(params.schedule, SCHEDULES)
    if sampler is None:
        yield _unknown("sampler", params.sampler, SAMPLERS)
    if schedule is None:
        yield _unknown("schedule", params.schedule, SCHEDULES)
    elif sampler and schedule not in (takes := SAMPLERS[sampler].schedules):
        yield FieldError("schedule", f"{sampler} has no use for the schedule {schedule}", " or ".join(takes))


def _unknown(field: str, text: str, names: Iterable[str]) -> FieldError:
    accepted = nearest(text, names) or names
    return FieldError(field, f"There is no {field} {text[:_LONGEST]!r}", " or ".join(accepted))


def _beyond(params: RenderParams, limits: Limits) -> Iterator[FieldError]:
    """Yield what passes the farm's limits."""
    for field in ("prompt", "negative_prompt"):
        if (length := len(getattr(params, field))) > limits.max_prompt_chars:
            yield FieldError(field, f"is {length:,} characters long", _accepted(field, limits))
        elif (tokens := Tokenizer().count(getattr(params, field))) > MAX_TOKENS:
            yield FieldError(field, f"is {tokens:,} tokens long", _accepted(field, limits))
    for field, least, most in (
        ("width", limits.min_size, limits.max_size),
        ("height", limits.min_size, limits.max_size),
        ("steps", 1, limits.max_steps),
        ("cfg_scale", 0, limits.max_cfg_scale),
        ("count", 1, limits.max_count),
    ):
        value = getattr(params, field)
        if not least <= value <= most:
            how = "small" if value < least else "large"
            yield FieldError(field, f"{_told(value)} is too {how}", _accepted(field, limits))
    if params.seed + params.count - 1 > MAX_SEED:
        yield FieldError(
            "seed", f"the last of {params.count} images would pass {MAX_SEED}", f"at most {MAX_SEED - params.count + 1}"
        )


def _accepted(field: str, limits: Limits) -> str:
    size = f"{limits.min_size} to {limits.max_size} in steps of 8, or {NATIVE_SIZE} for the checkpoint's own"
    prompt = f"text of at most {limits.max_prompt_chars:,} characters and {MAX_TOKENS:,} tokens"
    return {
        "prompt": prompt,
        "negative_prompt": prompt,
        "checkpoint": "the name or hash of a checkpoint, or empty for the farm's first one",
        "width": size,
        "height": size,
        "steps": f"a whole number from 1 to {limits.max_steps}",
        "cfg_scale": f"a number from 0 to {limits.max_cfg_scale:g}",
        "sampler": " or ".join(SAMPLERS),
        "schedule": " or ".join(SCHEDULES),
        "seed": f"a whole number from 0 to {MAX_SEED}, or {RANDOM_SEED} for a random one",
        "count": f"a whole number from 1 to {limits.max_count}",
        "exact": "true or false",
    }[field]


def _resolved(params: RenderParams, file: ModelFile | None) -> RenderParams:
    """Return the parameters with all filled in; without a checkpoint of its own, as for any."""
    native_size = (file and file.native_size) or _USUAL_SIZE
    return _spelled(params).model_copy(
        update={
            "checkpoint": catalogue.title(file) if file else params.checkpoint,
            "width": params.width or native_size,
            "height": params.height or native_size,
            "seed": secrets.randbelow(_RANDOM_SEEDS) if params.seed == RANDOM_SEED else params.seed,
        }
    )


def _spelled(params: RenderParams) -> RenderParams:
    sampler = _spelling(params.sampler, SAMPLERS) or params.sampler
    schedule = _spelling(params.schedule, SCHEDULES) or params.schedule
    return params.model_copy(update={"sampler": sampler, "schedule": schedule})


def _spelling(text: str, names: Mapping[str, object]) -> str | None:
    """Return the name that `text` is, whatever its case."""
    return {name.casefold(): name for name in names}.get(text.strip().casefold())


def _told(value: object) -> str:
    """Return what was given as JSON spells it, cut to what a message can hold."""
    if isinstance(value, str):
        return f"the text {value[:_LONGEST]!r}"
    if isinstance(value, (Mapping, list)):
        return "an object" if isinstance(value, Mapping) else "a list"
    if isinstance(value, int) and abs(value) > 10**20:
        return "a number of many digits"
    return json.dumps(value)


def _refused(problems: Iterable[FieldError]) -> Refused:
    """Return the refusal with the first problem of each field."""
    first: dict[str, FieldError] = {}
    for problem in problems:
        first.setdefault(problem.field, problem)
    return Refused(f"These parameters cannot be accepted as they are: {', '.join(first)}.", tuple(first.values()))
