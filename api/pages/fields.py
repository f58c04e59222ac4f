"""The fields that a person fills in: how a value is typed, and how what was typed is read.

A field has the dotted name of its parameter (`hires.scale`), as in refusals and in the names of the form's inputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal

from api.languages import _
from api.sentences import said
from shared.params.codecs import BUILT_IN_VAE
from shared.params.facts import is_blank
from shared.params.paths import field_name
from shared.params.scheduling import Scheduling
from shared.params.table import Parameter, parameters

Kind = Literal["text", "number", "choice", "flag", "maybe", "list", "instant"]
MAYBE: Final = {"yes": True, "no": False}
"""How a form writes a yes or no that is not a tick; if it may be left open, the third answer is empty."""

RESOLVED: Final = {"vae": BUILT_IN_VAE}
"""What admission may write for a default; it is shown like the default itself."""

_KINDS: Final[dict[str, Kind]] = {"integer": "number", "number": "number", "array": "list"}
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,20}")
_DECIMAL: Final = re.compile(r"[+-]?[0-9]{0,20}[.,][0-9]{1,20}")


@dataclass(frozen=True)
class Field:
    """A parameter on the form. Kind `maybe` is a yes or no whose default is not no, `list` holds texts."""

    parameter: Parameter
    item: str = ""  # of a list of groups, that it belongs to: `control_nets.1`

    @property
    def name(self) -> str:
        """The dotted path of the value, and the name of the input."""
        return self.item + self.parameter.name.removeprefix(field_name(self.item))

    @property
    def legend(self) -> str:
        """The words for the item of a list that it belongs to, counted from 1; empty: none."""
        around = parameters().get(field_name(self.item))
        return f"{printed(around.label)} {int(self.item.rpartition('.')[2]) + 1}" if around else ""

    @property
    def label(self) -> str:
        """The words beside the input, behind those for its item unless they say the same: `ControlNet 1: Weight`."""
        own, around = printed(self.parameter.label), parameters().get(field_name(self.item))
        return self.legend if around and own == printed(around.label) else titled(self.legend, own)

    @property
    def kind(self) -> Kind:
        """How it is filled in."""
        parameter = self.parameter
        if parameter.takes.kind == "instant":
            return "instant"
        if parameter.kind == "boolean":
            return "maybe" if parameter.is_optional or parameter.default else "flag"
        return "choice" if "enum" in parameter.schema else _KINDS.get(parameter.kind, "text")

    @property
    def is_blank(self) -> bool:
        """True if its box is empty at the default, which has a meaning of its own."""
        return is_blank(self.parameter.default) and self.parameter.default in self.parameter.fact.means

    @property
    def default(self) -> str:
        """The text of the input before anybody fills it in."""
        return "" if self.is_blank else self.typed(self.parameter.default)

    @property
    def placeholder(self) -> str:
        """The text inside its box while that is empty."""
        fact = self.parameter.fact
        return printed(fact.placeholder or (fact.means[self.parameter.default] if self.is_blank else ""))

    @property
    def labels(self) -> dict[str, str]:
        """The words for its values, by the value as it is typed."""
        labels = {self.typed(value): printed(label) for value, label in self.parameter.fact.labels.items()}
        return labels or ({"yes": _("yes"), "no": _("no")} if self.kind == "maybe" else {})

    def typed(self, value: object) -> str:
        """Return a value as a person would have typed it."""
        if isinstance(value, bool):
            return ("yes" if value else "no") if self.kind == "maybe" else "on" * value
        if isinstance(value, float):
            return plain(value)
        if isinstance(value, list | tuple):
            return ", ".join(map(str, value))
        return "" if value is None else str(value)

    def shown(self, text: str) -> str:
        """Return what was typed as the form shows it again: an instant as browsers want it, in UTC."""
        instant = _instant(text) if self.kind == "instant" else None
        return f"{instant:%Y-%m-%dT%H:%M}" if instant else text

    def read(self, text: str) -> object:
        """Return what was typed as the API takes it; what cannot be read stays as typed, to be refused there."""
        match self.kind:
            case "flag":
                return text == "on"
            case "maybe":
                return MAYBE.get(text, text)
            case "choice":
                return next((one for one in self.parameter.schema["enum"] if str(one) == text), text)
            case "number":
                return number(text.strip())
            case "instant":
                instant = _instant(text)
                return instant.isoformat() if instant else text.strip()
        return text.strip() if self.parameter.takes.kind == "pool" else text.replace("\r\n", "\n")


def plain(value: float) -> str:
    """`7.0` -> `7`, `1e-07` -> `0.0000001`: the shortest digits that give the same number."""
    digits = f"{Decimal(repr(value)):f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def number(text: str) -> object:
    """Return the number that was typed; any other text as it is, to be refused by the API."""
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text.replace(",", ".")) if _DECIMAL.fullmatch(text) else text


def printed(text: str) -> str:
    """Return a text of the facts in the language of the page, as pages print it."""
    return said(text).replace("'", "’")


def titled(title: str, words: str) -> str:
    """Return words below a title, in one line: `ControlNet 1: Weight`; without one, the words alone."""
    return _("%(title)s: %(words)s", title=title, words=words) if title else words


def _instant(text: str) -> datetime | None:
    """Return the instant that was typed, meant in UTC if it has no zone; None if it is none."""
    try:
        instant = datetime.fromisoformat(text.strip())
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _fields(table: Mapping[str, Parameter]) -> dict[str, Field]:
    return {name: Field(one) for name, one in table.items() if one.group and not (one.is_group or one.is_in_list)}


FIELDS: Final = _fields(parameters())
"""Every field of the parameters that holds a value of its own, by its dotted name, in the model's order."""
SCHEDULING: Final = _fields(parameters(Scheduling))
"""The fields that schedule a job."""
EVERY: Final = FIELDS | SCHEDULING
LISTS: Final = tuple(
    name for name, one in parameters().items() if one.group and one.is_group and one.is_list and not one.is_in_list
)
"""The lists of groups, whose items have fields of their own."""


def items(name: str, count: int) -> dict[str, Field]:
    """Return the fields of the first `count` items of a list of groups, by dotted path."""
    inner = [one for one in parameters().values() if one.name.startswith(f"{name}.") and not one.is_group]
    fields = [Field(one, f"{name}.{at}") for at in range(count) for one in inner]
    return {field.name: field for field in fields}
