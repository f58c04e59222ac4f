"""Sentences that other parts of the farm make, in the language of the page that shows them.

`shared` and `worker` speak English: to programs, in logs, and in what is stored. A page finds such a sentence again
in the catalogue, where it stands as its template, with places such as `{1}` for what the code fills in; what fills a
place is looked up in the same way. A sentence that is not known stays English (deploy/decisions/0042).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

from api.languages import ENGLISH, catalogue, language, translations

LONGEST: Final = 4000  # letters of a text that is looked up
DEEPEST: Final = 4  # a sentence in a place of a sentence, and so on
SOURCES: Final = ("shared/", "worker/")
_PLACE: Final = re.compile(r"\{(\w+)\}")
_END: Final = re.compile(r"(?<=\.) ")


@dataclass(frozen=True)
class Template:
    """A sentence with places: what stands between them, their names, and the sentence in another language."""

    between: tuple[str, ...]
    names: tuple[str, ...]
    said: str

    @property
    def letters(self) -> int:
        """How much of it is fixed: the more, the surer a sentence is of it."""
        return sum(map(len, self.between))

    def places(self, text: str) -> dict[str, str] | None:
        """Return what fills the places in `text`, each as short as it can be; None: it is another sentence.

        Takes time that grows with the text alone, whatever that holds.
        """
        first, *middle, last = self.between
        if len(text) < self.letters or not (text.startswith(first) and text.endswith(last)):
            return None
        filled, at, end = [], len(first), len(text) - len(last)
        for part in middle:
            found = text.find(part, at, end)
            if found < 0:
                return None
            filled.append(text[at:found])
            at = found + len(part)
        return dict(zip(self.names, [*filled, text[at:end]], strict=True)) if at <= end else None

    def filled(self, places: Mapping[str, str]) -> str:
        """Return the sentence in the other language with these places."""
        return _PLACE.sub(lambda place: places.get(place[1], place[0]), self.said)


def said(text: object) -> str:
    """Return a sentence of the farm in the language of the request; unknown ones, and English, as they are."""
    words = str(text)
    code = language()
    return words if code == ENGLISH or not words or len(words) > LONGEST else _said(code, words, 0)


@lru_cache(maxsize=4096)
def _said(code: str, text: str, depth: int) -> str:
    known = _known(code)
    if text in known or depth > DEEPEST:
        return known.get(text, text)
    if text.endswith(".") and text[:-1] in known:
        return _joined(code, "{sentence}.", sentence=known[text[:-1]])
    for template in _templates(code):
        places = template.places(text)
        if places is not None:
            return template.filled({name: _said(code, value, depth + 1) for name, value in places.items()})
    return _by_parts(code, text, depth + 1)


def _by_parts(code: str, text: str, depth: int) -> str:
    """Return a text with those of its sentences and parts that are known."""
    if len(sentences := _END.split(text)) > 1:
        return (
            "".join(_said(code, one, depth) for one in sentences)
            if _is_close(code)
            else " ".join(_said(code, one, depth) for one in sentences)
        )
    for sign, pattern in (("; ", "{first}; {rest}"), (": ", "{first}: {rest}")):
        first, found, rest = text.partition(sign)
        if found:
            return _joined(code, pattern, first=_said(code, first, depth), rest=_said(code, rest, depth))
    if text.endswith(".") and (words := _said(code, text[:-1], depth)) != text[:-1]:
        return _joined(code, "{sentence}.", sentence=words)
    return text


def _joined(code: str, pattern: str, **parts: str) -> str:
    return translations(code).gettext(pattern).format(**parts)


@cache
def _is_close(code: str) -> bool:
    """Return whether sentences stand without a space between them, as after `。`."""
    return _joined(code, "{sentence}.", sentence="") != "."


@cache
def _known(code: str) -> Mapping[str, str]:
    """Return the sentences without places by their English."""
    return {english: said for english, said in _sentences(code) if not _PLACE.search(english)}


@cache
def _templates(code: str) -> list[Template]:
    """Return the sentences with places, those that say most first."""
    made = []
    for english, other in _sentences(code):
        between = _PLACE.split(english)
        if len(between) > 1:
            made.append(Template(tuple(between[::2]), tuple(between[1::2]), other))
    return sorted(made, key=lambda one: -one.letters)


def _sentences(code: str) -> Iterator[tuple[str, str]]:
    for message in catalogue(code):
        is_said = message.id and isinstance(message.id, str) and message.string
        if is_said and any(place.startswith(SOURCES) for place, _ in message.locations):
            yield message.id, message.string
