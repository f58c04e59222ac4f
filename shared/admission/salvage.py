"""Parameters from elsewhere, such as a picture's file: those that this farm would admit are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from shared.admission import salvaged_tags
from shared.admission.admit import admit, prepare
from shared.admission.parse import JobRequest, parse
from shared.db.sessions import Sessions, transact
from shared.errors import FieldError, NotLooked, Refused
from shared.models.catalogue import Catalogue, Entry
from shared.models.kinds import Kind
from shared.params import paths, upscalers
from shared.params.codecs import BUILT_IN_VAE, split_title
from shared.params.fields import AUTOMATIC_VAE
from shared.params.table import parameters
from shared.settings import Limits

_LONGEST: Final = 80  # of a text that a note repeats
_KINDS: Final[tuple[Kind, ...]] = ("checkpoint", "vae", "face-restorer")  # that parameters name
_IN_LISTS: Final[dict[str, dict[str, Kind]]] = {  # that fields of their items name
    "controlnet": {"model": "controlnet"},
    "ip_adapters": {"model": "ip-adapter", "image_encoder": "image-encoder"},
}
_STAND_IN: Final = "Lanczos"  # for an upscaler that is not here
_SUFFIX: Final = re.compile(r"\.(?:safetensors|ckpt|pth?|bin|gguf)$", re.IGNORECASE)


class FittingParams(NamedTuple):
    """Parameters that can be submitted, and why others were left out."""

    params: dict[str, Any]
    left_out: tuple[str, ...]


def fit(
    sessions: Sessions,
    given: Mapping[str, Any],
    owner: str,
    limits: Limits,
    embeddings: Mapping[str, str] = MappingProxyType({}),
) -> FittingParams:
    """Return `given` without the fields that admission refuses, model files by their titles on this farm.

    A model file whose hash is unknown is looked up by its name, because some programs write wrong hashes. `embeddings`
    holds the hashes of embeddings by their words.
    """
    catalogue, params = transact(sessions, Catalogue.read), deepcopy(dict(given))
    notes = [
        *_entitled(catalogue, params),
        *_enlarged(catalogue, params),
        *salvaged_tags.fit(catalogue, params, owner, limits),
        *salvaged_tags.renamed_words(catalogue, params, embeddings),
    ]
    noted: set[str] = set()
    while refused := _refused(sessions, prepare(parse(params, owner, limits), styles={}), catalogue):
        was_there = paths.remove(params, [one.field for one in refused])
        if not any(was_there):  # no field of `given` is wrong: a farm without checkpoints refuses every job
            break
        gone = [one for one, there in zip(refused, was_there, strict=True) if there]
        notes += [f"{one.field}: {one.message}" for one in gone if one.field not in noted]
        noted |= {one.field for one in gone}  # what was taken out is missing next: its group goes without a second note
    return FittingParams(params, tuple(notes))


def _entitled(catalogue: Catalogue, params: dict[str, Any]) -> Iterator[str]:
    """Replace the names of model files by their titles; yield a note for each hash that no file has."""
    named: dict[str, Kind] = {
        name: kind for name, one in parameters().items() for kind in _KINDS if one.takes.kind == kind
    }
    for name, kinds in _IN_LISTS.items():
        items = params.get(name)
        numbers = range(len(items) if isinstance(items, list) else 0)
        named |= {f"{name}.{at}.{inner}": kind for at in numbers for inner, kind in kinds.items()}
    for field, kind in named.items():
        text = paths.get(params, field)
        if not isinstance(text, str) or not text or (kind == "vae" and text in {AUTOMATIC_VAE, BUILT_IN_VAE}):
            continue
        name, short_hash = split_title(text)
        file = catalogue.only(text, kind)
        if file is None and (file := _by_name(catalogue, name, kind)) is not None and short_hash:
            yield f"{field}: no file here has the hash {short_hash}; {file.title} is taken by its name"
        if file is not None:
            paths.put(params, field, file.title)


def _enlarged(catalogue: Catalogue, params: dict[str, Any]) -> Iterator[str]:
    """Replace the name of an upscaler by its title; yield a note if another takes its place."""
    text = paths.get(params, "hires.upscaler")
    if not isinstance(text, str) or upscalers.spelled(text):
        return
    file = catalogue.only(text, "upscaler") or _by_name(catalogue, split_title(text)[0], "upscaler")
    if file is None:
        yield f"Hires upscaler: {text[:_LONGEST]}: not available; {_STAND_IN} takes its place"
    paths.put(params, "hires.upscaler", file.title if file else _STAND_IN)


def _by_name(catalogue: Catalogue, name: str, kind: Kind) -> Entry | None:
    """Return the file of that name, also without its folders or the file's ending."""
    last = name.replace("\\", "/").rpartition("/")[2]
    found = (catalogue.only(one, kind) for one in (name, last, _SUFFIX.sub("", last)) if one)
    return next((file for file in found if file is not None), None)


def _refused(sessions: Sessions, request: JobRequest, catalogue: Catalogue) -> tuple[FieldError, ...]:
    try:
        transact(sessions, lambda session: admit(session, request, catalogue))
    except Refused as refused:
        return refused.fields
    except NotLooked:  # the models are not read yet, so no name is known to be wrong
        return ()
    return ()
