"""What a request says about its sweep: the form of the key `sweep`, before anything in it is looked up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema

from shared.admission.axes.notation import MOST_VALUES
from shared.errors import FieldError
from shared.params.fields import Parameters, Text, checked_text
from shared.params.job_spec import MOST_AXES, SPECIAL
from shared.wording import LONGEST, choices, message, spelled, wanted

KEY: Final = "sweep"
MOST_CELLS: Final = 1000
_MOST_ERRORS: Final = 10
_ITEMS: Final = [{"type": name} for name in ("string", "number", "boolean", "null")]
_SCALARS: Final = (str, int, float, bool, type(None))


def _values(given: object) -> object:
    if isinstance(given, str):
        return checked_text(given)
    if not isinstance(given, list | tuple):
        raise ValueError(f"must be a text or a list of values, not {spelled(given)}")  # noqa: TRY004 - as pydantic asks
    if len(given) > MOST_VALUES:
        raise ValueError(f"holds {len(given):,} values, and an axis has {MOST_VALUES} at most")
    for place, one in enumerate(given):
        if not isinstance(one, _SCALARS):
            raise ValueError(f"holds {spelled(one)} at place {place}, and a value is a text, a number, true or false")  # noqa: TRY004 - as above
        if isinstance(one, str):
            checked_text(one)
    return tuple(given)


Values = Annotated[
    Any,
    AfterValidator(_values),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"anyOf": _ITEMS}, "maxItems": MOST_VALUES},
            ],
            "description": "A list, or a text such as `7, 15, 20-25[3], 30-40(+5)` or `Euler a, LMS`; a value with a "
            "comma in it stands in quotes.",
        }
    ),
]


class AxisRequest(Parameters):
    """One axis, as it was asked for."""

    field: Annotated[
        Text,
        Field(
            min_length=1,
            max_length=200,
            description=f"The dotted name of a parameter, or {choices([*SPECIAL])}.",
        ),
    ]
    values: Annotated[Values, Field(description="Its values; prompt_matrix and dynamic_prompts take none.")] = ()
    of: Annotated[
        Text,
        Field(
            max_length=200,
            description="lora, lora_name: the name of the LoRA; dynamic_prompts: all, or random for some of them.",
        ),
    ] = ""
    count: Annotated[
        int | None, Field(ge=1, le=MOST_VALUES, description="dynamic_prompts: how many texts are drawn at random.")
    ] = None


class Draft(Parameters):
    """What of a sweep is rendered first: some of its images, or all of them with fewer steps."""

    every: Annotated[
        int | None,
        Field(
            ge=2,
            le=MOST_CELLS,
            description="Every image of this number, from the first on; the others are held until the job is released.",
        ),
    ] = None
    steps: Annotated[
        int | None,
        Field(
            ge=1,
            description="Every image with so many steps; approving the job submits the sweep with all of them.",
        ),
    ] = None


class SweepRequest(Parameters):
    """Axes along which the images of a job differ: one image for each combination of their values."""

    axes: Annotated[tuple[AxisRequest, ...], Field(strict=False, min_length=1, max_length=MOST_AXES)]
    seeds: Annotated[
        Literal["same", "each"], Field(description="One seed for all images, or each its own, counted up.")
    ] = "same"
    draft: Annotated[
        Draft | None, Field(description="A part of the images first, or all of them with fewer steps.")
    ] = None


class SplitRequest(NamedTuple):
    """A request without its sweep, the sweep, and the problems of a sweep of a wrong form."""

    rest: dict[str, Any]
    sweep: SweepRequest | None
    problems: tuple[FieldError, ...]


def split(given: Mapping[str, Any]) -> SplitRequest:
    """Return a request and its sweep apart; None: it has none, or one of a wrong form."""
    rest = {name: value for name, value in given.items() if name != KEY}
    if given.get(KEY) is None:
        return SplitRequest(rest, None, ())
    try:
        sweep = SweepRequest.model_validate(given[KEY])
        return SplitRequest(rest, sweep, tuple(_draft(sweep.draft)))
    except ValidationError as error:
        problems = error.errors(include_url=False)[:_MOST_ERRORS]
    found = (FieldError(_place(one["loc"]), message(one), _accepted(one)) for one in problems)
    return SplitRequest(rest, None, tuple(found))


def _draft(draft: Draft | None) -> Iterator[FieldError]:
    """Yield what is wrong with a draft that says both what it may say, or neither."""
    if draft and (draft.every is None) == (draft.steps is None):
        message = "says neither every nor steps" if draft.every is None else "says both every and steps"
        yield FieldError(f"{KEY}.draft", message, "one of them")


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join([KEY, *(str(part)[:LONGEST] for part in location)])


def _accepted(problem: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    location = problem["loc"]
    if not location:
        return 'an object such as {"axes": [{"field": "cfg_scale", "values": "7, 15, 20"}]}'
    if location == ("axes",):
        return f"a list of 1 to {MOST_AXES} axes"
    if problem["type"] == "extra_forbidden":
        return "axes, seeds and draft; in an axis field, values, of and count"
    if location[-1] == "values":
        return f"a text such as 7, 15, 20-25[3], or a list of at most {MOST_VALUES} texts and numbers"
    return wanted(problem)
