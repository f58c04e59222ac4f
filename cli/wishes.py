"""What `farm render` was asked for on its command line, as the API takes it: one nested object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from shared.errors import FarmError

Wishes = dict[str, Any]


def nested(wishes: Mapping[str, Any], into: Mapping[str, Any] | None = None) -> Wishes:
    """Return values by dotted paths as the object that they are in, beside those that it has already.

    Raises FarmError where two contradict, or a path leads nowhere.
    """
    from shared.params import paths  # noqa: PLC0415 - half a second's work, spared where nobody needs it

    root: Wishes = deepcopy(dict(into or {}))
    for path in paths.in_order(wishes):
        try:
            paths.put(root, path, wishes[path])
        except paths.PathError as error:
            raise FarmError(f"{error}.") from None
    return root


def read(pairs: Iterable[str]) -> Wishes:
    """Return what `--param NAME=VALUE` options ask for, by dotted paths. Raises FarmError."""
    wishes: Wishes = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name.strip() and equals):
            raise FarmError(f"--param {pair}: must be NAME=VALUE, such as hires.scale=1.5 (docs/parameters.md).")
        wishes[name.strip()] = _value(name.strip(), text)
    return wishes


def _value(path: str, text: str) -> object:
    """Return the value that a text means: text where the parameter is text, else JSON; the farm judges the rest."""
    from shared.params.paths import field_name  # noqa: PLC0415 - as above
    from shared.params.table import parameters  # noqa: PLC0415 - as above

    parameter = parameters().get(field_name(path))
    if parameter is not None and (
        parameter.kind == "string" or (parameter.is_list and not parameter.is_group and path != parameter.name)
    ):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
