"""The rows of the form that make a job a sweep: what varies along each, and its values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from werkzeug.datastructures import MultiDict

from api.languages import _, in_every_language, ngettext
from api.pages import retyped
from api.pages.fieldsets import full_label
from api.pages.filters import time_words
from api.schemas.jobs import JobBody
from api.schemas.sweeps import SweepPreviewBody
from shared.admission.axes.names import varied
from shared.admission.axes.request import KEY
from shared.errors import FieldError
from shared.params.job_spec import MOST_AXES, SPECIAL

_BLANK: Final = ("field", "values", "of")
_DRAFT: Final = {"every": f"{KEY}.draft", "steps": f"{KEY}.draft.steps"}
_DRAWN: Final = re.compile(r"(?P<how>[^\W\d]{1,40})\s*(?P<many>[0-9]{1,4})")
_LONGEST_NUMBER: Final = 9  # digits; Python reads no number of thousands of them
_IS_NUMBER: Final = re.compile(rf"[0-9]{{1,{_LONGEST_NUMBER}}}")


@dataclass(frozen=True)
class Row:
    """One row as it was typed; empty, until somebody fills it in."""

    field: str = ""
    values: str = ""
    of: str = ""
    error: FieldError | None = None


class Choice(NamedTuple):
    """Something that can vary: its name in a request, its label, and all words that find it, of every language."""

    name: str
    label: str
    found_by: str


def rows(form: MultiDict[str, str], errors: Mapping[str, FieldError]) -> list[Row]:
    """Return the rows of the form, those that are filled in first, each with what is wrong with it."""
    typed = [Row(one["field"], one["values"], one["of"]) for one in _typed(form)]
    for number, row in enumerate(typed):
        here = f"{KEY}.axes.{number}"
        wrong = (error for name, error in errors.items() if f"{name}.".startswith(f"{here}."))
        typed[number] = replace(row, error=next(wrong, None))
    return (typed + [Row()] * MOST_AXES)[:MOST_AXES]


def options() -> list[Choice]:
    """Return what can vary: single parameters, and what stands for no single one."""
    plain = [(name, full_label(name), one.label) for name, one in varied().items() if not one.is_in_list]
    special = [(name, _(axis.choice), axis.choice) for name, axis in SPECIAL.items()]
    return [
        Choice(name, label, " ".join([*in_every_language(english), name]))
        for name, label, english in (*plain, *special)
    ]


def read(form: MultiDict[str, str]) -> dict[str, object]:
    """Return what the rows ask for as a request says it, one image for each cell; nothing, if none is filled in."""
    axes = [_axis(one) for one in _typed(form)]
    if not axes:
        return {}
    typed = {name: form.get(box, "").strip() for name, box in _DRAFT.items()}
    draft = {name: int(text) if _IS_NUMBER.fullmatch(text) else text for name, text in typed.items() if text}
    seeds = "each" if form.get(f"{KEY}.seeds") else "same"
    return {"count": 1, KEY: {"axes": axes, "seeds": seeds} | ({"draft": draft} if draft else {})}


def note(form: MultiDict[str, str]) -> str:
    """Return what of the form does not count beside rows that are filled in; nothing, if all of it does."""
    count = form.get("count", "").strip()
    if count in ("", "1") or not _typed(form):
        return ""
    typed = {"field": full_label("count"), "value": count[:_LONGEST_NUMBER]}
    return _("One picture for each combination: %(field)s %(value)s does not count.", **typed)


def typed(axes: Sequence[tuple[str, Sequence[str]]]) -> MultiDict[str, str]:
    """Return rows with these fields and values as a person types them."""
    rows = MultiDict[str, str]()
    for number, (field, values) in enumerate(axes):
        rows[f"{KEY}.axes.{number}.field"] = field
        rows[f"{KEY}.axes.{number}.values"] = ", ".join(map(_quoted, values))
    return rows


def of_job(job: JobBody) -> MultiDict[str, str] | None:
    """Return the rows that make a sweep again; values that cannot be told from it are left to be typed."""
    if not job.axes:
        return None
    rows = typed([(axis.field, retyped.values(job, at)) for at, axis in enumerate(job.axes)])
    for number, axis in enumerate(job.axes):
        rows[f"{KEY}.axes.{number}.of"] = axis.of
    if job.spec.sweep and job.spec.sweep.seeds == "each":
        rows[f"{KEY}.seeds"] = "on"
    if job.full_steps:
        rows[_DRAFT["steps"]] = str(job.params.steps)
    return rows


def to_be_typed(job: JobBody) -> tuple[str, ...]:
    """Return the labels of what varies in a job with values that `of_job` leaves out."""
    told = retyped.WITHOUT_VALUES
    left = (axis for at, axis in enumerate(job.axes) if axis.field not in told and not retyped.values(job, at))
    return tuple(_(axis.label) for axis in left)


def words(preview: SweepPreviewBody) -> str:
    """Return what a sweep would be in a line: `12 pictures, about 40 s`."""
    pictures = ngettext("%(num)s picture", "%(num)s pictures", preview.images)
    if preview.seconds is None:
        return pictures
    return _("%(pictures)s, about %(time)s", pictures=pictures, time=time_words(preview.seconds))


def row_label(name: str) -> str:
    """Return what a refusal of a sweep is called on the form: the row that it is about."""
    number = next((int(part) + 1 for part in name.split(".") if part.isdecimal()), None)
    return _("Vary") if number is None else _("Vary, row %(number)s", number=number)


def _axis(row: Mapping[str, str]) -> dict[str, object]:
    """Return the axis that a row asks for; `random 8` draws so many of a prompt's choices, as on the command line."""
    asked: dict[str, object] = {name: text for name, text in row.items() if text}
    drawn = _DRAWN.fullmatch(row["values"].strip()) if row["field"] == "dynamic_prompts" else None
    if drawn is None or drawn["how"].casefold() not in in_every_language("random"):
        return asked
    return {"field": row["field"], "of": "random", "count": int(drawn["many"])}


def _quoted(value: str) -> str:
    """Return a value that stands for itself in a list of them."""
    is_plain = value.strip() == value != "" and not {",", '"', "\n"} & {*value}
    return value if is_plain else '"{}"'.format(value.replace('"', '""'))


def _typed(form: MultiDict[str, str]) -> list[dict[str, str]]:
    typed = {name: text.replace("\r\n", "\n") for name, text in form.items()}
    given = [{name: typed.get(f"{KEY}.axes.{row}.{name}", "") for name in _BLANK} for row in range(MOST_AXES)]
    return [one for one in given if one["field"].strip()]
