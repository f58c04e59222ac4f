"""The values of an axis: what each changes of a job's parameters, and the title of its row or column."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from shared.admission.accepted import accepted
from shared.admission.axes.notation import MOST_VALUES, BadValues, Item, items, too_many
from shared.admission.axes.numbers import Grid, numbers
from shared.params import paths
from shared.params.codecs import number, split_title
from shared.params.render import RenderParams
from shared.params.samplers import SCHEDULES
from shared.params.spellings import named
from shared.params.table import Parameter
from shared.settings import Limits
from shared.wording import LONGEST, message

Scalar = str | int | float | bool | None
Edit = Callable[[str, str], str]
"""(dotted name of a prompt, its text) -> its text in a cell."""

_LONGEST_TITLE: Final = 80
_FLAGS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NOTHING: Final = frozenset({"null", "none", "default"})


@dataclass(frozen=True)
class Value:
    """One value of an axis."""

    title: str
    changes: Mapping[str, Scalar] = field(default_factory=dict)  # by the dotted names of parameters
    edit: Edit | None = None  # what else happens to prompts
    styles: tuple[str, ...] = ()  # that join those of the job


def titled(text: str) -> str:
    """Return a text as a title: one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_TITLE else f"{line[: _LONGEST_TITLE - 1]}…"


def given_items(values: object, limits: Limits) -> list[Scalar | Item]:
    """Return the values of an axis one by one, those of a text as items. Raises BadValues for one that is too long."""
    found: list[Any] = items(values) if isinstance(values, str) else [*values] if isinstance(values, tuple) else []
    if not found:
        raise BadValues("has no values", "a list of values, with commas between them")
    for place, one in enumerate(found):
        if isinstance(one, Item | str) and len(text_of(one)) > limits.max_prompt_chars:
            message = f"is {len(text_of(one)):,} characters long"
            raise BadValues(message, f"at most {limits.max_prompt_chars:,} characters", place)
    return found


def text_of(one: Scalar | Item) -> str:
    """Return a value as text."""
    if isinstance(one, Item):
        return one.text
    return one if isinstance(one, str) else json.dumps(one)


@dataclass(frozen=True)
class Reader:
    """Reads values of one parameter, as a job with these parameters can have them."""

    path: str
    parameter: Parameter
    base: RenderParams
    limits: Limits

    def all(self, values: object) -> list[Value]:
        """Return the values of an axis. Raises BadValues."""
        found: list[Value] = []
        for place, one in enumerate(given_items(values, self.limits)):
            read = self._read(one)
            if len(found) + len(read) > MOST_VALUES:
                raise too_many()
            found += [self._value(value, place) for value in read]
        return found

    def one(self, text: str) -> Value:
        """Return the single value that a text means. Raises BadValues."""
        first, *others = self._read(Item(text))
        if others:
            raise BadValues(f"has {text[:LONGEST]!r} for {self.path}, which is a range", self._accepted)
        return self._value(first, None)

    def _read(self, one: Scalar | Item) -> list[Scalar]:
        """Return what a value stands for, in the parameter's own type as far as its text says it."""
        if not isinstance(one, Item | str):
            return [one]
        text, schema = text_of(one).strip(), self.parameter.schema
        labelled = {label.casefold(): value for value, label in self.parameter.fact.labels.items()}
        if text.casefold() in labelled:
            return [labelled[text.casefold()]]
        if self.parameter.is_optional and text.casefold() in _NOTHING:
            return [None]
        if self.parameter.kind in {"integer", "number"}:
            grid = Grid(self.parameter.kind == "integer", schema.get("multipleOf", 1))
            return [*numbers(text, grid)]
        if self.parameter.kind == "boolean":
            if text.casefold() not in _FLAGS:
                raise BadValues(f"holds {text[:LONGEST]!r}", "true or false")
            return [_FLAGS[text.casefold()]]
        spelled = {str(known).casefold(): known for known in schema.get("enum", ())}
        return [spelled.get(text.casefold(), text)]

    def _value(self, value: Scalar, place: int | None) -> Value:
        """Return a value that has the form of the parameter. Raises BadValues."""
        given = self.base.model_dump(mode="json", exclude_defaults=True)
        paths.put(given, self.path, value)
        try:
            read = paths.get(RenderParams.model_validate(given), self.path)
        except ValidationError as error:
            raise BadValues(message(error.errors(include_url=False)[0]), self._accepted, place) from None
        return Value(self._title(read), {self.path: read})

    @property
    def _accepted(self) -> str:
        return accepted(self.path, self.limits)

    def _title(self, value: Scalar) -> str:
        fact, kind = self.parameter.fact, self.parameter.takes.kind
        if value in fact.labels:
            return fact.labels[value]
        if isinstance(value, bool):
            return "on" if value else "off"
        if value is None or value == "":
            return fact.means.get(value, "none")
        if not isinstance(value, str):
            return number(value) if isinstance(value, float) else str(value)
        if kind == "sampler" and (known := named(value)):
            return " ".join(filter(None, [known.sampler, SCHEDULES.get(known.schedule or "")]))
        return titled(SCHEDULES.get(value, value) if kind == "schedule" else split_title(value)[0])
