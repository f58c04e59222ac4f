"""The words by which pictures are found: of a prompt, and of what a person searches for.

Languages without spaces between words (Chinese, Japanese) are cut into characters and pairs of characters, because a
word of theirs cannot be told from the next one without a dictionary. A search for two characters or more asks for its
pairs, so that it finds them side by side.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

MOST_OF_A_PROMPT: Final = 400
MOST_OF_A_SEARCH: Final = 20
_LONGEST: Final = 40  # characters of a word

_UNSPACED: Final = "\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_PART: Final = re.compile(rf"([{_UNSPACED}]+)|((?:(?![{_UNSPACED}])[^\W_])+)")
_TAG: Final = re.compile(r"<[^<>]*>")  # an adapter: found by its name, not as a word
_WEIGHT: Final = re.compile(r":\s*[-+]?[\d.]+\s*(?=[)\]])")  # (sun:1.2)
_PLURAL: Final = re.compile(r"[a-z]{2,}[a-rt-z]s")


def of_prompt(prompt: str) -> list[str]:
    """Return the words of a prompt, each once, at most `MOST_OF_A_PROMPT`."""
    plain = _WEIGHT.sub(" ", _TAG.sub(" ", prompt))
    return _first(_words(plain, is_search=False), MOST_OF_A_PROMPT)


def of_search(text: str) -> list[str]:
    """Return what a prompt must hold, all of it, to be found by `text`; at most `MOST_OF_A_SEARCH` words."""
    return _first(_words(text, is_search=True), MOST_OF_A_SEARCH)


def _first(words: Iterator[str], most: int) -> list[str]:
    found: dict[str, None] = {}
    for word in words:
        found.setdefault(word)
        if len(found) == most:
            break
    return [*found]


def _words(text: str, *, is_search: bool) -> Iterator[str]:
    for unspaced, spaced in _PART.findall(unicodedata.normalize("NFKC", text).casefold()):
        if spaced:
            word = spaced[:_LONGEST]
            yield word[:-1] if _PLURAL.fullmatch(word) else word  # boat finds boats, and boats find boat
            continue
        if not is_search or len(unspaced) == 1:
            yield from unspaced
        yield from map("".join, pairwise(unspaced))
