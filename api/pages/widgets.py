"""The form as a template shows it: each field with what was typed, what was wrong with it, and what can be chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from api.pages import scheduling
from api.pages.choices import Option
from api.pages.fields import FIELDS, Field
from api.pages.fieldsets import (
    CHOICE_LABELS,
    GROUPS,
    HINTS,
    LABELS,
    LIVE,
    PLACEHOLDERS,
    RESOLVED,
    SLIDERS,
    SWITCH,
    TERMS,
    Group,
)
from api.pages.form_data import Given, default
from shared.errors import FieldError

Widget = Literal["words", "text", "number", "choice", "flag", "list", "instant"]
_SHORT: Final = 24  # letters of a text that stand in a group's title


@dataclass(frozen=True)
class Control:
    """One field of the form."""

    name: str
    widget: Widget
    label: str
    help: str
    value: str
    default: str
    placeholder: str = ""
    slider: str = ""
    error: FieldError | None = None
    options: tuple[Option, ...] = ()
    chosen: tuple[str, ...] = ()  # of a list

    @property
    def is_live(self) -> bool:
        """True where what can be chosen changes while the form is open."""
        return self.name in LIVE

    @property
    def is_set(self) -> bool:
        """True where it is not left at its default; an emptied box is."""
        return self.value.strip() not in ("", self.default)

    @property
    def words(self) -> str:
        """What was set, for the title of a folded group: `Hires steps 10`, `Film`."""
        if self.widget == "flag":
            return self.label
        chosen = next((option.label for option in self.options if option.value == self.value), self.value)
        return f"{self.label} {chosen if len(chosen) <= _SHORT else chosen[:_SHORT] + '…'}"


@dataclass(frozen=True)
class Section:
    """A folding group; open where something in it is set or was refused."""

    group: Group
    controls: tuple[Control, ...]
    is_asked: bool  # what a group as a whole hangs on: the second pass, a picture, a refiner

    @property
    def is_open(self) -> bool:
        return self.is_asked or any(control.is_set or control.error for control in self.controls)

    @property
    def words(self) -> list[str]:
        """What is set in it."""
        return [control.words for control in self.controls if control.is_set and not control.name.endswith(".picture")]


def controls(
    given: Given, errors: Mapping[str, FieldError], offers: Mapping[str, Sequence[Option]]
) -> dict[str, Control]:
    """Return every control by name: of each field, of the terms, the switch of the second pass.

    `offers` are what selects hold, and what boxes propose.
    """
    made = {name: _control(one, given, errors.get(name), offers.get(name, ())) for name, one in FIELDS.items()}
    switch = Control(SWITCH, "flag", LABELS[SWITCH], "", given.get(SWITCH, ""), "", error=errors.get(SWITCH))
    asked = {name: _term(name, given, errors.get(name), offers.get(name, ())) for name in scheduling.HELP}
    return made | asked | {SWITCH: switch}


def sections(made: Mapping[str, Control]) -> list[Section]:
    """Return the folding groups of these controls."""
    asked = {group.name: bool(made[group.name].value) if group.name == SWITCH else False for group in GROUPS}
    return [
        Section(
            group, tuple(made[name] for name in group.fields if name in made), is_asked=asked.get(group.name, False)
        )
        for group in (*GROUPS, *TERMS)
    ]


def _control(one: Field, given: Given, error: FieldError | None, offered: Sequence[Option]) -> Control:
    value = given.get(one.name, "")
    return Control(
        name=one.name,
        widget=_widget(one, offered),
        label=LABELS[one.name],
        help=HINTS.get(one.name, one.help),
        value=value,
        default=value if value == RESOLVED.get(one.name) else default(one),
        placeholder=PLACEHOLDERS.get(one.name, ""),
        slider=SLIDERS.get(one.name, ""),
        error=error,
        options=_options(one, value, offered),
        chosen=tuple(given.getlist(one.name)) if one.kind == "list" else (),
    )


def _term(name: str, given: Given, error: FieldError | None, offered: Sequence[Option]) -> Control:
    empty = scheduling.default(name)
    return Control(
        name=name,
        widget=scheduling.widget(name),
        label=LABELS[name],
        help=scheduling.HELP[name],
        value=scheduling.shown(name, given),
        default=empty,
        placeholder=empty,
        error=error,
        options=tuple(offered),
    )


def _widget(one: Field, offered: Sequence[Option]) -> Widget:
    if one.kind in ("number", "flag", "list"):
        return one.kind
    if offered or one.kind in ("choice", "maybe"):
        return "choice"
    return "words" if one.name.endswith("prompt") else "text"


def _options(one: Field, value: str, offered: Sequence[Option]) -> tuple[Option, ...]:
    """Return what a select holds; what was asked for and is not there stays to be seen."""
    if one.kind == "maybe":
        offered = [Option("", "the sampler’s own way"), Option("yes", "leave it out"), Option("no", "keep it")]
    if one.kind == "choice":
        labels = CHOICE_LABELS.get(one.name, {})
        offered = [Option(choice, labels.get(choice, choice)) for choice in one.choices]
    known = {option.value for option in offered}
    if not offered or not value or value in known or one.kind == "list":
        return tuple(offered)
    return (*offered, Option(value, f"{value} (not here)"))
