"""The form as a template shows it: each field with what was typed, what was wrong with it, and what can be chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final, Literal

from api.languages import _, in_every_language
from api.pages.choices import Option
from api.pages.fields import EVERY, RESOLVED, Field, printed
from api.pages.fieldsets import FOLDED, SCHEDULING, SWITCHES, label, members, switches
from api.pages.form_data import Given, every
from api.use_cases import catalogue
from shared.errors import FieldError
from shared.models.kinds import KINDS
from shared.params.facts import EVERYDAY, HIRES, Group
from shared.params.table import parameters
from shared.settings import Limits

Widget = Literal["words", "text", "number", "choice", "flag", "list", "instant", "picture"]
_SHORT: Final = 24  # letters of a text that stand in a group's title
_LIVE: Final = frozenset({"checkpoint", "vae", "pool"})  # kinds of values that come and go while the form is open


@dataclass(frozen=True)
class Control:
    """One field of the form."""

    name: str
    widget: Widget
    label: str
    help: str
    value: str
    default: str
    group: Group | None = None
    found_by: str = ""  # its names in every language, and that of its parameter
    legend: str = ""  # of the item of a list that it belongs to
    more: str = ""  # what it does, for those who want to know
    meanings: str = ""  # what single values mean: `-1: random`
    placeholder: str = ""
    slider: str = ""
    architectures: str = ""  # that it has an effect on, each with the flag it needs there; empty: all
    is_whole: bool = False  # a number without a fraction
    is_live: bool = False  # what can be chosen changes while the form is open
    is_of_files: bool = False  # what can be chosen are model files, which may be many
    has_more: bool = False  # there may be more of them than these options
    error: FieldError | None = None
    options: tuple[Option, ...] = ()
    chosen: tuple[str, ...] = ()  # of a list; of a field for pictures, those that it holds
    is_many: bool = False  # of a field for pictures: it takes several

    @property
    def around(self) -> str:
        """The dotted name of the group of parameters around it."""
        return self.name.rpartition(".")[0]

    @property
    def grouped(self) -> list[tuple[str, list[Option]]]:
        """What can be chosen, under its headings; options without one have an empty heading."""
        return [(group, list(options)) for group, options in groupby(self.options, key=attrgetter("group"))]

    @property
    def is_set(self) -> bool:
        """True where it is not left at its default; an emptied box is."""
        return self.value.strip() not in ("", self.default)

    @property
    def words(self) -> str:
        """The label and the value that was set, for the title of a folded group: `Hires steps 10`, `Film`."""
        if self.widget == "flag":
            return self.label
        chosen = next((option.label for option in self.options if option.value == self.value), self.value)
        return f"{self.label} {chosen if len(chosen) <= _SHORT else chosen[:_SHORT] + '…'}"


@dataclass(frozen=True)
class Section:
    """A folding group; open where something in it is set or was refused."""

    group: Group
    controls: tuple[Control, ...]
    is_asked: bool  # by its box, as the second pass is
    missing: str = ""  # what to do so that it can be used at all

    @property
    def is_open(self) -> bool:
        """True where something in it is set or was refused."""
        return self.is_asked or any(control.is_set or control.error for control in self.controls)

    @property
    def words(self) -> list[str]:
        """The labels and values that are set in it; of the items of lists, what each one is."""
        shown = [one for one in self.controls if one.is_set and one.widget != "picture"]
        return [one.words for one in shown if not one.legend or one.name.endswith(".model")]


def controls(
    given: Given, errors: Mapping[str, FieldError], offers: Mapping[str, Sequence[Option]], limits: Limits
) -> dict[str, Control]:
    """Return every control by name: of each field, and the switches of optional groups.

    `offers` are the options of selects, and the proposals of boxes.
    """
    made = {
        name: _control(field, given, errors.get(name), offers.get(field.parameter.name, ()), limits)
        for name, field in every(given).items()
    }
    return made | {name: _switch(name, given, errors.get(name)) for name in SWITCHES}


def everyday(made: Mapping[str, Control]) -> list[Control]:
    """Return the controls that stand in front."""
    return [made[name] for name in members(EVERYDAY)]


def sections(made: Mapping[str, Control], missing: Mapping[str, str]) -> list[Section]:
    """Return the folding groups of these controls; `missing` is what to do about those that cannot be used, by name."""
    return [
        Section(
            group,
            (
                *(made[name] for name in members(group) if name in made),
                *(one for name, one in made.items() if one.group == group and name not in EVERY),
            ),
            is_asked=any(made[name].value for name in switches(group)),
            missing=printed(missing.get(group.name, "")),
        )
        for group in (*FOLDED, *SCHEDULING)
    ]


def choice(options: Sequence[Option]) -> Control:
    """Return what is drawn as these options alone, none of them chosen."""
    return Control("", "choice", "", "", "", "", options=tuple(options))


def _switch(name: str, given: Given, error: FieldError | None) -> Control:
    """Return the box that asks for an optional group; the second pass's has a place of its own above its fields."""
    group = None if name == HIRES.name else parameters()[name].group
    return Control(name, "flag", label(name), "", given.get(name, ""), "", group=group, error=error)


def _control(
    field: Field, given: Given, error: FieldError | None, offered: Sequence[Option], limits: Limits
) -> Control:
    parameter, value = field.parameter, field.shown(given.get(field.name, field.default))
    is_picture = parameter.takes.kind == "picture"
    return Control(
        name=field.name,
        widget=_widget(field, offered),
        label=printed(field.parameter.label),
        legend=field.legend,
        group=field.parameter.group,
        found_by=" ".join([*in_every_language(parameter.label), field.name]),
        help=_help(field),
        value=value,
        default=value if value == RESOLVED.get(field.name) else field.default,
        more=printed(parameter.fact.more),
        meanings=printed("; ".join(f"{mean}: {words}" for mean, words in parameter.fact.means.items())),
        placeholder=field.placeholder,
        slider=_slider(field, limits),
        architectures=" ".join(f"{one}:{flag}" for one, flag in parameter.fact.architectures.items()),
        is_whole=parameter.kind == "integer",
        is_live=parameter.takes.kind in _LIVE,
        is_of_files=parameter.takes.kind in KINDS,
        has_more=parameter.takes.kind in KINDS and len(offered) >= catalogue.OFFERED,
        error=error,
        options=_options(field, value, offered),
        chosen=tuple(filter(None, given.getlist(field.name))) if field.kind == "list" or is_picture else (),
        is_many=is_picture and field.kind == "list",
    )


def _help(field: Field) -> str:
    """Return the sentence below a field. Pictures come as files, so it does not mention their ids."""
    parameter = field.parameter
    if parameter.takes.kind != "picture":
        is_instant = field.kind == "instant"
        return _("%(words)s (UTC).", words=printed(parameter.fact.help)) if is_instant else printed(parameter.hint)
    if field.kind == "list":
        return _("Up to %(n)s pictures, read together.", n=parameter.schema["maxItems"])
    return "".join(_("Without one: %(what)s.", what=printed(words)) for words in parameter.fact.means.values())


def _widget(field: Field, offered: Sequence[Option]) -> Widget:
    if field.parameter.takes.kind == "picture":
        return "picture"
    if field.kind in ("number", "flag", "list", "instant"):
        return field.kind
    if field.parameter.takes.kind == "prompt":
        return "words"
    is_closed = bool(offered) and field.parameter.takes.kind != "pool"
    return "choice" if is_closed or field.kind in ("choice", "maybe") else "text"


def _slider(field: Field, limits: Limits) -> str:
    """Return the lowest and highest value and the step of the slider beside a box."""
    if field.parameter.fact.slider is None:
        return ""
    least, most, step = field.parameter.fact.slider
    limit = field.parameter.takes.most
    return f"{least:g} {getattr(limits, limit) if limit else most:g} {step:g}"


def _options(field: Field, value: str, offered: Sequence[Option]) -> tuple[Option, ...]:
    """Return the options of a select; a value that was asked for and is not there is still shown."""
    if field.kind in ("choice", "maybe"):
        choices = field.parameter.schema.get("enum") or field.labels
        offered = [Option(str(choice), field.labels.get(str(choice), str(choice))) for choice in choices]
    known = {option.value for option in offered}
    is_open = field.kind == "list" or field.parameter.takes.kind == "pool"  # its choices are proposals, not bounds
    if not offered or not value or value in known or is_open:
        return tuple(offered)
    return (*offered, Option(value, _("%(name)s (not here)", name=value)))
