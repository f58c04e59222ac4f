"""The fields that a person fills in: how a value is typed, and what was typed is read.

A nested field goes by its path with dots (`hires.scale`), as in refusals and in the names of the form's inputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import Any, Final, Literal

from shared.admission.accepted import REQUIRED, Parameter, parameters

Kind = Literal["text", "number", "choice", "flag", "maybe", "list"]
MAYBE: Final = {"yes": True, "no": False}
"""How a form tells a yes-or-no that may be left open; the third answer is empty."""

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,20}")
_DECIMAL: Final = re.compile(r"[+-]?[0-9]{0,20}[.,][0-9]{1,20}")


@dataclass(frozen=True)
class Field:
    """One value of the parameters. `maybe` is a yes or no that may be left open; `list` holds texts."""

    name: str
    kind: Kind
    help: str
    default: object  # as JSON has it; None where there is none
    choices: tuple[str, ...]

    def typed(self, value: object) -> str:
        """Return a value as a person would have typed it."""
        if isinstance(value, bool):
            return ("yes" if value else "no") if self.kind == "maybe" else "on" * value
        if isinstance(value, float):
            return plain(value)
        return "" if value is None else str(value)

    def read(self, text: str) -> object:
        """Return what was typed as the door takes it; what is no number stays as typed, for the door to refuse."""
        match self.kind:
            case "flag":
                return text == "on"
            case "maybe":
                return MAYBE.get(text, text)
            case "number":
                return number(text.strip())
        return text.replace("\r\n", "\n")


def plain(value: float) -> str:
    """`7.0` -> `7`, `1e-07` -> `0.0000001`: the shortest digits that give the same number."""
    digits = f"{Decimal(repr(value)):f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def inside(nested: Mapping[str, Any] | None, path: str) -> Any:  # noqa: ANN401 - whatever lies there
    """Return what lies at `path` (`img2img.mask.blur`); None where something on the way is not there."""
    return reduce(lambda found, name: None if found is None else found.get(name), path.split("."), nested)


def number(text: str) -> object:
    """Return the number that was typed; what is none as it is, for the door to refuse."""
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text.replace(",", ".")) if _DECIMAL.fullmatch(text) else text


def _kind(parameter: Parameter) -> Kind:
    if parameter.kind == "boolean":
        return "maybe" if parameter.is_optional else "flag"
    if "enum" in parameter.schema:
        return "choice"
    kinds: dict[str, Kind] = {"integer": "number", "number": "number", "array": "list"}
    return kinds.get(parameter.kind, "text")


def _field(parameter: Parameter) -> Field:
    return Field(
        name=parameter.name,
        kind=_kind(parameter),
        help=parameter.description,
        default=None if parameter.default == REQUIRED else parameter.default,
        choices=tuple(parameter.schema.get("enum", ())),
    )


FIELDS: Final = {name: _field(parameter) for name, parameter in parameters().items() if not parameter.is_group}
"""Every field that holds a value of its own, by its path, in the model's order."""
