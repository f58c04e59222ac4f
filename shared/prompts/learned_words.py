"""Words that embeddings teach (textual inversion, Gal et al. 2022, arXiv:2208.01618): each stands for several vectors.

A word is its file's name, matched by the tokens of that name, so case does not matter, and it is matched within weights
and edits. In a prompt each of its vectors is a virtual token: a number beyond CLIP's vocabulary, made from the hash of
the file, so it means the same vector everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from shared.prompts.chunks import CHUNK

VOCABULARY: Final = 49408  # of CLIP
MOST_VECTORS: Final = CHUNK  # of a word: no chunk's end tears it


class LearnedWord(NamedTuple):
    """A word that an embedding teaches, and how many vectors it stands for."""

    name: str  # as a prompt writes it
    sha256: str  # of the embedding's file
    vectors: int

    @property
    def tokens(self) -> tuple[int, ...]:
        """Its virtual tokens."""
        return virtual_tokens(self.sha256, self.vectors)


class Words:
    """Learned words by the tokens of their names. Threads may share them."""

    def __init__(self, named: Iterable[tuple[Sequence[int], LearnedWord]] = ()) -> None:
        """Of several words whose names have the same tokens the first one counts; names without tokens mean none."""
        by_first: dict[int, dict[tuple[int, ...], LearnedWord]] = defaultdict(dict)
        for tokens, word in named:
            if tokens:
                by_first[tokens[0]].setdefault(tuple(tokens), word)
        self._by_first = {
            first: sorted(words.items(), key=lambda item: len(item[0]), reverse=True)
            for first, words in by_first.items()
        }

    def split(self, tokens: Sequence[int]) -> Iterator[int | LearnedWord]:
        """Yield `tokens` of a text one by one, but a word in the place of its name's.

        Where several names begin, the longest counts.
        """
        if not self._by_first:
            yield from tokens
            return
        place = 0
        while place < len(tokens):
            name, one = next(
                (found for found in self._by_first.get(tokens[place], ()) if _begins(tokens, place, found[0])),
                ((tokens[place],), tokens[place]),
            )
            yield one
            place += len(name)


NO_WORDS: Final = Words()


def word_of(path: str) -> str:
    """Return the word that the embedding in a file teaches: the name of the file without its ending."""
    return PurePosixPath(path).stem


def virtual_tokens(sha256: str, vectors: int) -> tuple[int, ...]:
    """Return the virtual tokens of a file that holds so many vectors."""
    first = VOCABULARY + MOST_VECTORS * int.from_bytes(sha256.encode())
    return tuple(range(first, first + vectors))


def _begins(tokens: Sequence[int], place: int, name: Sequence[int]) -> bool:
    return tuple(tokens[place : place + len(name)]) == name
