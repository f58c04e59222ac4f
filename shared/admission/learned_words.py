"""The embeddings whose words the prompts mention, each by its file's name; to checkpoints of others it is any text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Self

from shared.admission.adapters import misfit
from shared.admission.pairing import HIRES, OWN, REFINER
from shared.admission.prompts import lengths, too_long
from shared.errors import FieldError
from shared.models.catalogue import Catalogue, Entry
from shared.params.render import RenderParams
from shared.prompts.editing import may_change
from shared.prompts.extra_networks import without, without_comments
from shared.prompts.learned_words import LearnedWord, Words, word_of
from shared.prompts.tokenizer import Tokenizer
from shared.settings import Limits

_HASH: Final = 12  # digits that pictures say
_NO_SIGNS: Final = str.maketrans("", "", "\\([]")
_WEIGHT: Final = re.compile(r":[0-9.+-]*(?=\))")


@dataclass
class MentionedWords:
    """The embeddings whose words prompts mention, and the problems of prompts that are too long with them."""

    roles: dict[str, Any] = field(default_factory=dict)  # of a model set
    problems: list[FieldError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # of words that only embeddings for other checkpoints teach


@dataclass(frozen=True)
class Lexicon:
    """The words that the farm's embeddings teach to one checkpoint, and those that they teach to others only."""

    checkpoint: Entry
    files: Mapping[LearnedWord, Entry]
    others: Mapping[LearnedWord, Entry]

    @classmethod
    def of(cls, catalogue: Catalogue, checkpoint: Entry) -> Self:
        """Return the lexicon of a checkpoint."""
        known: Self | None = catalogue.worked_out.get((cls, checkpoint.path))
        if known is None:
            known = catalogue.worked_out[cls, checkpoint.path] = cls._made(catalogue, checkpoint)
        return known

    @classmethod
    def _made(cls, catalogue: Catalogue, checkpoint: Entry) -> Self:
        files: dict[LearnedWord, Entry] = {}
        others: dict[LearnedWord, Entry] = {}
        for file in catalogue.usable("embedding"):
            if file.sha256 and (vectors := file.details.vectors):
                known = others if misfit(file, checkpoint) else files
                known.setdefault(LearnedWord(word_of(file.path), file.sha256, max(vectors.values())), file)
        return cls(checkpoint, files, others)

    def may_stand_in(self, prompt: str) -> bool:
        """Return whether any of the words may stand in a prompt; False is certain, and found without its tokens."""
        plain = without(without_comments(prompt))
        squashed = _squashed(plain)
        # An edit brings texts together that stand apart in the prompt.
        return may_change(plain) or any(":" in name or name in squashed for name in self._squashed)

    @cached_property
    def _squashed(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_squashed(word.name) for word in (*self.files, *self.others)))

    @property
    def words(self) -> Words:
        """The words by the tokens of their names; of several with one name the first file counts."""
        return Tokenizer().learn(tuple(self.files))

    @property
    def other_words(self) -> Words:
        """The words of the others."""
        return Tokenizer().learn(tuple(self.others))

    def note(self, word: LearnedWord) -> str:
        """Return the note of a word of the others."""
        what = f"{self.others[word].described} is an embedding for other checkpoints"
        return f"{what}: {self.checkpoint.described} reads its name as plain text."


def mentioned(
    catalogue: Catalogue, params: RenderParams, checkpoints: Mapping[str, Entry], limits: Limits
) -> MentionedWords:
    """Return the embeddings that prompts mention in any pass; `checkpoints` stand by their dotted field names.

    A refiner reads the prompts of the pass that it takes over.
    """
    found, files, ignored = MentionedWords(), dict[str, Entry](), dict[str, str]()
    for lexicons in _lexicons(catalogue, checkpoints):
        words = {is_second: lexicon.words for is_second, lexicon in lexicons.items()}
        others = {is_second: lexicon.other_words for is_second, lexicon in lexicons.items()}
        for name, prompt in params.of_kind("prompt").items():
            if not any(lexicon.may_stand_in(prompt) for lexicon in lexicons.values()):
                continue
            for is_second, length in lengths(name, params, limits, words):
                found.problems += [] if found.problems else too_long(name, length, limits)
                files |= {file.path: file for file in map(lexicons[is_second].files.__getitem__, length.words)}
            for is_second, length in lengths(name, params, limits, others):
                ignored |= {word.name: lexicons[is_second].note(word) for word in sorted(length.words)}
    learned = {word_of(path): (files[path].sha256 or "")[:_HASH] for path in sorted(files)}
    if files:
        found.roles["embeddings"] = {path: files[path].sha256 for path in sorted(files)}
        found.roles["hashes"] = {f"embedding:{word}": digits for word, digits in learned.items()}
    known = {word.casefold() for word in learned}
    found.notes = [note for word, note in ignored.items() if word.casefold() not in known]
    return found


def _squashed(text: str) -> str:
    """Return the letters of a text: without blanks, brackets and weights, and in one case."""
    letters = unicodedata.normalize("NFC", text).casefold().translate(_NO_SIGNS)
    return _WEIGHT.sub("", "".join(letters.split())).replace(")", "")


def _lexicons(catalogue: Catalogue, checkpoints: Mapping[str, Entry]) -> Iterator[dict[bool, Lexicon]]:
    """Yield the lexicons of the checkpoints that read prompts by whether it is the second pass; then a refiner's."""
    own, refiner = checkpoints.get(OWN), checkpoints.get(REFINER)
    if own is not None and catalogue.usable("embedding"):
        second = checkpoints.get(HIRES, own)
        yield {False: Lexicon.of(catalogue, own), True: Lexicon.of(catalogue, second)}
        if refiner is not None:
            yield dict.fromkeys((False, True), Lexicon.of(catalogue, refiner))
