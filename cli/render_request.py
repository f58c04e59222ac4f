"""The body of the request that `farm render` sends: one nested object, from the options of the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from shared.errors import FarmError

_PAIR: Final = re.compile(r"\s*\w+=")
_NEXT_PAIR: Final = re.compile(r",(?=\s*\w+=)")
_UPLOAD: Final = re.compile(r"[0-9a-f]{64}|data:.*", re.DOTALL)


def nested(values: Mapping[str, Any], into: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return an object with these values at their dotted paths, added to a copy of `into`.

    Raises FarmError if two values contradict each other, or a path leads nowhere.
    """
    from shared.params import paths  # noqa: PLC0415 - half a second's work, spared unless needed

    root = deepcopy(dict(into or {}))
    for path in paths.in_order(values):
        try:
            paths.put(root, path, values[path])
        except paths.PathError as error:
            raise FarmError(f"{error}.") from None
    return root


def read_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """Return the values of `--param NAME=VALUE` options by dotted path. Raises FarmError."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name.strip() and equals):
            raise FarmError(f"--param {pair}: must be NAME=VALUE, such as hires.scale=1.5 (docs/parameters.md).")
        values[name.strip()] = _value(name.strip(), text)
    return values


def read_items(lists: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """Return the values of options such as `--control model=canny,weight=0.8`, one an item of a list, by dotted path.

    A comma that no name follows belongs to the value before it. Raises FarmError.
    """
    values: dict[str, Any] = {}
    for name, items in lists.items():
        for number, text in enumerate(items):
            pairs = _NEXT_PAIR.split(text)
            if not all(_PAIR.match(pair) for pair in pairs):
                raise FarmError(f"{text}: must be NAME=VALUE,…, such as model=canny,picture=edges.png,weight=0.8.")
            values |= read_pairs(f"{name}.{number}.{pair.strip()}" for pair in pairs)
    return values


def pictures_in(values: Mapping[str, Any]) -> list[str]:
    """Return the paths of the pictures that items of lists name by a file on this machine. Raises FarmError."""
    from shared.params.paths import field_name  # noqa: PLC0415 - as above
    from shared.params.table import parameters  # noqa: PLC0415 - as above

    table = parameters()
    found = [name for name in values if (one := table.get(field_name(name))) and one.takes.kind == "picture"]
    named = [name for name in found if not _UPLOAD.fullmatch(values[name])]
    for name in named:
        if not Path(values[name]).is_file():
            raise FarmError(f"{name}: {values[name]} is neither a file here nor an upload.")
    return named


def _value(path: str, text: str) -> object:
    """Return a text parameter's value as it is typed, any other as JSON; the API checks it."""
    from shared.params.paths import field_name  # noqa: PLC0415 - as above
    from shared.params.scheduling import Scheduling  # noqa: PLC0415 - as above
    from shared.params.table import parameters  # noqa: PLC0415 - as above

    parameter = {**parameters(), **parameters(Scheduling)}.get(field_name(path))
    if parameter is not None and (
        parameter.kind == "string" or (parameter.is_list and not parameter.is_group and path != parameter.name)
    ):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
