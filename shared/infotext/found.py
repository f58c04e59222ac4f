"""What a text of another program amounts to, and what readers of such texts share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.infotext.grammar import Parts

Json = Mapping[str, Any]


class Found(NamedTuple):
    """The parts of a text, and notes of what cannot be read of it."""

    parts: Parts
    notes: tuple[str, ...] = ()
    is_known: bool = True  # for a text of how a picture was made, and not for any JSON


def unreadable(program: str, why: str, *, is_known: bool = True) -> Found:
    """Return a finding for the text of a program that cannot be read: no part of it may be taken for a prompt."""
    return Found(Parts("", "", {}), (f"a text of {program}: it cannot be read, because {why}",), is_known)


def parsed(text: str) -> Any:  # noqa: ANN401 - whatever JSON it is
    """Return the JSON in a text; None if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def loaded(text: object) -> Json | None:
    """Return a JSON object, given as one or as a text; None for anything else."""
    document = parsed(text) if isinstance(text, str) else text
    return document if isinstance(document, Mapping) else None


def bare(name: str) -> str:
    """Return the letters and digits of a field's name, in lower case: programs differ in the rest."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def plain(value: object) -> str:
    """Return a value of JSON as the text has it; empty if it says nothing."""
    if value is None or value is False or value in ("", "None", [], {}):
        return ""
    if isinstance(value, Mapping):  # a model
        named = next((value[name] for name in ("name", "model_name", "modelName") if name in value), None)
        return named if isinstance(named, str) else json.dumps(value, ensure_ascii=False)
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
