"""The embeddings whose words the prompts mention, each by its file's name; to checkpoints of others it is any text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.admission.adapters import NamedAdapters, misfit
from shared.admission.prompts import lengths, too_long
from shared.models.catalogue import Catalogue, Entry
from shared.params.render import RenderParams
from shared.prompts.learned_words import LearnedWord, Words
from shared.prompts.tokenizer import Tokenizer
from shared.settings import Limits

_HASH: Final = 12  # digits that pictures say


def mentioned(
    catalogue: Catalogue, params: RenderParams, checkpoints: Mapping[str, Entry], limits: Limits
) -> NamedAdapters:
    """Return the embeddings that prompts mention in either pass, and the prompts that are too long with them.

    `checkpoints` stand by their dotted field names.
    """
    found = NamedAdapters()
    first = checkpoints.get("checkpoint")
    if first is None or not catalogue.usable("embedding"):
        return found
    second = checkpoints.get("hires.checkpoint", first)
    words = {False: learned(catalogue, first), True: learned(catalogue, second)}
    embeddings: dict[str, str] = {}
    for name in params.of_kind("prompt"):
        for length in lengths(name, params, limits, words):
            found.problems += too_long(name, length, limits)
            embeddings |= {word.name: word.sha256 for word in length.words}
    if embeddings:
        names = sorted(embeddings)
        found.roles["embeddings"] = {name: embeddings[name] for name in names}
        found.roles["hashes"] = {f"embedding:{name}": embeddings[name][:_HASH] for name in names}
    return found


def learned(catalogue: Catalogue, checkpoint: Entry) -> Words:
    """Return the words that embeddings teach to a checkpoint."""
    fitting = (file for file in catalogue.usable("embedding") if not misfit(file, checkpoint))
    words = (
        LearnedWord(file.name, file.sha256 or "", max(vectors.values()))
        for file in fitting
        if (vectors := file.details.vectors)
    )
    return Tokenizer().learn(tuple(words))
