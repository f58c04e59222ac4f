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
_WEIGHED: Final = re.compile(r"(.+):(-?[0-9]*\.?[0-9]+)", re.DOTALL)
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


def over(preset: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a preset with `params` in their places, group by group; empty prompts change nothing."""
    merged = dict(preset)
    for name, value in params.items():
        below = merged.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[name] = over(below, value)
        elif value != "":
            merged[name] = value
    return merged


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

    A comma that no name follows belongs to the value before it. `canny=edges.png:0.8` says model, picture and weight.
    Raises FarmError.
    """
    values: dict[str, Any] = {}
    for name, items in lists.items():
        for number, text in enumerate(items):
            pairs = _pairs(name, text)
            if not all(_PAIR.match(pair) for pair in pairs):
                raise FarmError(
                    f"{text}: must be NAME=PICTURE:WEIGHT, such as canny=edges.png:0.8, or NAME=VALUE,…, such as "
                    "model=canny,weight=0.8."
                )
            for pair in pairs:
                _add(values, f"{name}.{number}.{pair.strip()}")
    return values


def _pairs(name: str, text: str) -> list[str]:
    """Return what the text of an item says, as pairs of a field and its value."""
    from shared.params.table import children, parameters  # noqa: PLC0415 - as above

    table, (first, *others) = parameters(), _NEXT_PAIR.split(text)
    picture = next(one for one in children(name, table) if table[one].takes.kind == "picture").rpartition(".")[2]
    model, equals, rest = first.partition("=")
    is_long = f"{name}.{model.strip()}" in table or any(
        one.strip().startswith(("model=", f"{picture}=")) for one in others
    )
    if is_long or not (model.strip() and equals):
        return [first, *others]
    shown, weight = found.groups() if (found := _WEIGHED.fullmatch(rest)) else (rest, "1")
    return [f"model={model.strip()}", f"{picture}={shown}", f"weight={weight}", *others]


def _add(values: dict[str, Any], pair: str) -> None:
    """Add the value of a field to `values`; one of a list, as its next items. Raises FarmError."""
    from shared.params.paths import field_name  # noqa: PLC0415 - as above
    from shared.params.table import parameters  # noqa: PLC0415 - as above

    for path, value in read_pairs([pair]).items():
        one = parameters().get(field_name(path))
        if one is None or not one.is_list or one.takes.kind != "picture":
            values[path] = value
            continue
        first = sum(known.startswith(f"{path}.") for known in values)
        for at, text in enumerate(_pictures(value), first):
            values[f"{path}.{at}"] = text


def _pictures(text: str) -> list[str]:
    """Return the pictures that a text names with commas between them; a comma may also be part of a file's name."""
    return [text] if _UPLOAD.fullmatch(text) or Path(text).is_file() else [one.strip() for one in text.split(",")]


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
