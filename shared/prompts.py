"""What a prompt means to a text encoder. Prompts are plain: every word counts the same, no sign is special."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

CHUNK: Final = 75  # tokens that a text encoder reads at once, between BOS and EOS
BACKTRACK: Final = 20  # a comma among this many last tokens ends the chunk early, so that no phrase is torn
COMMA: Final = 267


def chunked(tokens: Sequence[int]) -> list[list[int]]:
    """Return `tokens` in chunks of at most 75; no tokens: one empty chunk.

    A full chunk is cut after its last comma, if that is among the last 20 tokens and something follows the chunk that
    is not a comma itself: the phrase that began there moves to the next chunk whole.
    """
    chunks: list[list[int]] = []
    rest = list(tokens)
    while len(rest) > CHUNK:
        cut = CHUNK if rest[CHUNK] == COMMA else _after_last_comma(rest[:CHUNK])
        chunks.append(rest[:cut])
        rest = rest[cut:]
    return [*chunks, rest]


def counted(chunks: Sequence[Sequence[int]]) -> int:
    """Return how many tokens `chunks` take up: every chunk but the last counts in full."""
    return CHUNK * (len(chunks) - 1) + len(chunks[-1])


def _after_last_comma(chunk: Sequence[int]) -> int:
    commas = [place for place in range(CHUNK - BACKTRACK, CHUNK) if chunk[place] == COMMA]
    return commas[-1] + 1 if commas else CHUNK
