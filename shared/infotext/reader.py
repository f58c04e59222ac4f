"""Reads the `parameters` text of a picture, of the farm or of another program, as far as the farm can do the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from shared.infotext import dialects, networks, programs, units
from shared.infotext.grammar import Parts, taken_apart
from shared.infotext.keys import NEGATIVE_PROMPT, PROMPT, Key, keys, signs
from shared.infotext.networks import Hashes
from shared.params import paths
from shared.params.paths import Path
from shared.params.render import RenderParams
from shared.params.table import parameters
from shared.wording import message

MOST_CHARACTERS: Final = 2**18  # of a text: several times the longest prompts of the farm
_LONGEST: Final = 80  # characters of a value that a note repeats
_MOST_NOTES: Final = 50


class Read(NamedTuple):
    """Fields of `RenderParams`, nested, that may be submitted; and the parts of a text that were left out, and why."""

    params: dict[str, Any]
    left_out: tuple[str, ...]
    embeddings: Mapping[str, str] = MappingProxyType({})  # by their words: beginnings of the hashes of their files


def read(text: str, model: type[RenderParams] = RenderParams) -> Read:
    """Return what a text says, as fields of `model`. Never raises: parts that cannot be understood are left out."""
    if len(text) > MOST_CHARACTERS:
        return Read({}, (f"a text of more than {MOST_CHARACTERS:,} characters: it is not read",))
    plain = _cleaned(text)
    found = programs.found(plain)
    hashes: Hashes = {}
    parts, notes = (found.parts, [*found.notes]) if found else (taken_apart(plain), [])
    params = _prompts(parts)
    for line in parts.rest.split("\n", _MOST_NOTES + 1) if parts.rest else []:  # such as templates
        notes.append(f"{line[:_LONGEST]}: not read, because it is not a value")
    if parts.values:
        values = {name: value for name, value in parts.values.items() if name not in {PROMPT, NEGATIVE_PROMPT}}
        hashes = networks.taken(values)
        found_units, of_units = units.taken(values)
        params |= found_units
        notes += [*of_units, *dialects.translate(values)]
        notes += _take(values, params, model)
    notes += _pin(params, hashes, model)
    notes += _leave_out_bad(params, model)
    notes = list(dict.fromkeys(notes))
    more = [f"and {len(notes) - _MOST_NOTES} more"] if len(notes) > _MOST_NOTES else []
    return Read(params, (*map(_cleaned, notes[:_MOST_NOTES]), *more), networks.embeddings(hashes))


def describes_picture(text: str) -> bool:
    """Return whether a text, which may be any comment, says how a picture was made, even if it cannot be read."""
    if len(text) > MOST_CHARACTERS:
        return False
    if found := programs.found(text):
        return found.is_known
    parts = taken_apart(text)
    return bool(parts.values or parts.negative_prompt)


def _cleaned(text: str) -> str:
    """Return a text without NULs and halves of characters, which no text of the farm may hold."""
    return text.replace("\x00", "").encode(errors="ignore").decode()


def _prompts(parts: Parts) -> dict[str, Any]:
    """Return both prompts as parameters."""
    said = {"prompt": (PROMPT, parts.prompt), "negative_prompt": (NEGATIVE_PROMPT, parts.negative_prompt)}
    prompts = {field: parts.values.get(name, text) for field, (name, text) in said.items()}
    return {field: prompt for field, prompt in prompts.items() if prompt}


def _take(values: Mapping[str, str], params: dict[str, Any], model: type[RenderParams]) -> Iterator[str]:
    """Put the values with a key into `params`; yield notes of the others, and of values that cannot be understood."""
    missing = {group for group, names in signs(model).items() if names.isdisjoint(values)}
    homeless = []
    for name, value in values.items():
        known = [key for key in keys(model) if key.name == name]
        fit = [key for key in known if key.around not in missing]
        if fit:
            yield from _put(fit[0], value, params)
        elif known:
            homeless.append(_note(name, value))
        elif not dialects.is_harmless(name, value):
            yield _note(name, value)
    if homeless:
        yield f"{', '.join(homeless)}: what it belongs to is not in the file, such as the picture that was painted over"


def _pin(params: dict[str, Any], hashes: Hashes, model: type[RenderParams]) -> Iterator[str]:
    """Have the tags of prompts in `params` name files by titles, if hashes are said; yield notes of those left out."""
    for name, one in parameters(model).items():
        prompt = paths.get(params, name) if one.takes.kind == "prompt" else None
        if isinstance(prompt, str):
            text, notes = networks.pinned(prompt, hashes, is_negative=name.endswith("negative_prompt"))
            yield from notes
            if text != prompt:
                paths.put(params, name, text)


def _put(key: Key, text: str, params: dict[str, Any]) -> Iterator[str]:
    try:
        values = key.codec.read(text)
    except ValueError:
        yield f"{_note(key.name, text)} cannot be understood"
        return
    for field, value in zip(key.fields, values, strict=True):
        paths.put(params, field, value)


def _leave_out_bad(params: dict[str, Any], model: type[RenderParams]) -> Iterator[str]:
    """Remove from `params` the fields that cannot be accepted, and yield notes of them."""
    noted: set[Path] = set()
    while problems := _problems(params, model):
        was_there = paths.remove(params, [path for path, _ in problems])
        for (path, said), there in zip(problems, was_there, strict=True):
            if there and path not in noted:  # what was taken out is missing next: its group goes without a second note
                yield f"{paths.dotted(path)}: {said}"
            noted.add(path)
        if not any(was_there):  # the problem is not a field, so nothing more can be removed
            break


def _problems(params: Mapping[str, Any], model: type[RenderParams]) -> list[tuple[Path, str]]:
    """Return the paths of fields that cannot be accepted, each with the reason."""
    try:
        model.model_validate(params)
    except ValidationError as error:
        return [(one["loc"], message(one)) for one in error.errors()]
    return []


def _note(name: str, value: str) -> str:
    return f"{name[:_LONGEST]}: {value[:_LONGEST]}"
