"""What `farm render` was asked for on its command line, as the API takes it: one nested object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from shared.errors import FarmError

Wishes = dict[str, Any]


def nested(wishes: Mapping[str, Any], into: Mapping[str, Any] | None = None) -> Wishes:
    """Return values by dotted names as the object that they are fields of, beside those that it has already.

    Raises FarmError where two contradict.
    """
    root: Wishes = deepcopy(dict(into or {}))
    for name, value in wishes.items():
        *groups, last = name.split(".")
        place = root
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise FarmError(f"{group} is given as a whole and by {name}: leave one out.")
        place[last] = value
    return root


def read(pairs: Iterable[str]) -> Wishes:
    """Return what `--param NAME=VALUE` options ask for, by dotted names. Raises FarmError."""
    wishes: Wishes = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name.strip() and equals):
            raise FarmError(f"--param {pair}: must be NAME=VALUE, such as hires.scale=1.5 (docs/parameters.md).")
        wishes[name.strip()] = _value(name.strip(), text)
    return wishes


def _value(name: str, text: str) -> object:
    """Return the value that a text means: text where the parameter is text, else JSON; the farm judges the rest."""
    from shared.admission.accepted import parameters  # noqa: PLC0415 - half a second's work, spared where nobody needs it

    parameter = parameters().get(name)
    if parameter is not None and parameter.kind == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
