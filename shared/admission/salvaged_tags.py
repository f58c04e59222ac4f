"""Tags of prompts from elsewhere: those that name a file which fits are kept, by the name that it has on this farm."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from shared.admission.adapters import MOST_ADAPTERS, bases_of, file_of
from shared.admission.checkpoints import named_checkpoint
from shared.admission.parse import parse
from shared.errors import NotLooked, Refused
from shared.models.catalogue import Catalogue, Entry
from shared.models.kinds import KIND_OF_TAG
from shared.params import paths
from shared.params.codecs import split_title
from shared.params.table import parameters
from shared.prompts.adapters import BadTag, Use, used
from shared.prompts.extra_networks import Network, renamed, replaced
from shared.settings import Limits
from shared.wording import LONGEST

MOST_WORDS: Final = 32  # of embeddings, that are looked for


def fit(catalogue: Catalogue, params: dict[str, Any], owner: str, limits: Limits) -> Iterator[str]:
    """Take tags that name no file which fits out of the prompts in `params`, and yield notes of them.

    A file is found by the hash in its title. One whose hash is unknown is found by its name, with a note.
    """
    read = parse(params, owner, limits).params
    known = {name: _checkpoint(catalogue, params, name, limits) for name in ("checkpoint", "hires.checkpoint")}
    checkpoints = {name: file for name, file in known.items() if file is not None}
    for name, bases in bases_of(read, checkpoints).items():
        before = read.of_kind("prompt")[name]
        prompt, notes = _fitting(catalogue, before, bases)
        if prompt != before:
            paths.put(params, name, prompt)
        yield from (f"{name}: {note}" for note in notes)


def renamed_words(catalogue: Catalogue, params: dict[str, Any], embeddings: Mapping[str, str]) -> Iterator[str]:
    """Write the names that embeddings have here into the prompts in `params`; yield notes of other names and no files.

    `embeddings` holds the beginnings of their hashes, by the words that the prompts have for them.
    """
    for word, digits in [*embeddings.items()][:MOST_WORDS]:
        file, shown = catalogue.only(f"{word} [{digits}]", "embedding"), word[:LONGEST]
        if file is None:
            yield f"embedding {shown}: no file here has the hash {digits}"
        elif file.name.casefold() != word:
            yield f"embedding {shown}: it is called {file.name} here"
            _rename(params, word, file.name)


def _rename(params: dict[str, Any], word: str, name: str) -> None:
    """Replace a whole word in the prompts, whatever its case."""
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    for field, one in parameters().items():
        if one.takes.kind == "prompt" and isinstance(prompt := paths.get(params, field), str):
            paths.put(params, field, pattern.sub(lambda _: name, prompt))


def _checkpoint(catalogue: Catalogue, params: Mapping[str, Any], field: str, limits: Limits) -> Entry | None:
    """Return the checkpoint of a field, so far as it is known."""
    text = paths.get(params, field, "")
    try:
        return named_checkpoint(catalogue, text, limits) if isinstance(text, str) else None
    except (Refused, NotLooked):
        return None


def _fitting(catalogue: Catalogue, prompt: str, bases: Sequence[Entry]) -> tuple[str, list[str]]:
    """Return a prompt with those of its tags that name a file which fits, and notes of the others."""
    notes: list[str] = []
    tried: list[str] = []

    def changed(tag: Network, text: str) -> str:
        tried.append(text)
        if len(tried) > MOST_ADAPTERS:
            return ""
        try:
            [use] = used(text)
            name, note = _name_here(catalogue, use)
            file_of(catalogue, use._replace(name=name), bases)
        except NotLooked:  # the models are not read yet, so no name is known to be wrong
            return text
        except (BadTag, Refused) as error:
            notes.append(f"{tag.kind} {tag.name[:LONGEST]}: {str(error).removesuffix('.')}")
            return ""
        notes.extend([note] if note else [])
        return text if name == use.name else renamed(text, name)

    fitting = replaced(prompt, changed)
    more = len(tried) - MOST_ADAPTERS
    return fitting, [*notes, *([f"{more} more tags: a prompt has at most {MOST_ADAPTERS}"] if more > 0 else [])]


def _name_here(catalogue: Catalogue, use: Use) -> tuple[str, str | None]:
    """Return the name by which a tag finds its file here, and a note if that may be another file.

    A title becomes the plain name if that means the same file.
    """
    name, digits = split_title(use.name)
    named, pinned = (catalogue.only(text, KIND_OF_TAG[use.kind]) for text in (name, use.name))
    if not digits or (pinned is None and named is None):
        return use.name, None
    if pinned is None and named is not None:
        return (
            name,
            f"{use.kind} {name[:LONGEST]}: no file here has the hash {digits}; {named.title} is taken by its name",
        )
    if pinned is None or (named is not None and named.sha256 == pinned.sha256):
        return name, None
    return pinned.title, None
