"""Chunks: what a text encoder reads at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

CHUNK: Final = 75  # tokens between BOS and EOS
BACKTRACK: Final = 20  # a comma among this many last tokens ends the chunk early, so that no phrase is torn
COMMA: Final = 267


class Word(NamedTuple):
    """What no chunk's end may tear: one token, or all the vectors of a word that was learned later."""

    tokens: tuple[int, ...]
    weight: float = 1.0


class Chunk(NamedTuple):
    """At most 75 tokens, and how much each of them weighs."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


Text = tuple[Chunk, ...]
EMPTY: Final = Chunk((), ())


def chunked(words: Iterable[Word]) -> list[Chunk]:
    """Return `words` in chunks; no words: one empty chunk.

    A full chunk is cut after its last comma, if that is among the last 20 tokens and what follows the chunk is not a
    comma itself: the phrase that began there moves to the next chunk whole. A word of several tokens begins the next
    chunk if it does not fit into the rest of one.
    """
    chunks: list[Chunk] = []
    tokens: list[int] = []
    weights: list[float] = []
    for word in words:
        while tokens and len(tokens) + len(word.tokens) > CHUNK:
            cut = _cut(tokens, word)
            chunks.append(Chunk(tuple(tokens[:cut]), tuple(weights[:cut])))
            tokens, weights = tokens[cut:], weights[cut:]
        tokens += word.tokens
        weights += [word.weight] * len(word.tokens)
    return [*chunks, Chunk(tuple(tokens), tuple(weights))]


def chunked_tokens(tokens: Sequence[int], weights: Sequence[float]) -> list[Chunk]:
    """Return what `chunked` returns for words of one token each, several times as fast."""
    chunks, at = list[Chunk](), 0
    while len(tokens) - at > CHUNK:
        cut = at + _cut(tokens[at : at + CHUNK], Word((tokens[at + CHUNK],)))
        chunks.append(Chunk(tuple(tokens[at:cut]), tuple(weights[at:cut])))
        at = cut
    return [*chunks, Chunk(tuple(tokens[at:]), tuple(weights[at:]))]


def counted(chunks: Sequence[Chunk]) -> int:
    """Return how many tokens `chunks` take up: every chunk but the last counts in full."""
    return CHUNK * (len(chunks) - 1) + len(chunks[-1].tokens)


def _cut(tokens: Sequence[int], word: Word) -> int:
    """Return how many of `tokens` the chunk keeps that has no room for `word`."""
    if len(tokens) < CHUNK or word.tokens == (COMMA,):
        return len(tokens)
    commas = [place for place in range(CHUNK - BACKTRACK, CHUNK) if tokens[place] == COMMA]
    return commas[-1] + 1 if commas else CHUNK
