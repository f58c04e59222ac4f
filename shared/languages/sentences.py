"""Sentences of the farm in other languages.

`shared` and `worker` speak English: to programs, in logs, and in what is stored. What a person reads is found again in
the catalogue, where it stands as its template, with places such as `{1}` for what the code fills in; what fills a
place is looked up in the same way. A sentence that is not known stays English (deploy/decisions/0045).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Final

from shared.languages.catalogue import ENGLISH, catalogue, translations

LONGEST: Final = 4000  # letters of a text that is looked up
DEEPEST: Final = 4  # a sentence in a place of a sentence, and so on
SOURCES: Final = ("shared/", "worker/", "api/use_cases/", "api/http/", "api/security/")
JOINED: Final = ("%(words)s.", "%(first)s; %(rest)s", "%(title)s: %(words)s")
"""How sentences and parts of them are put together; a catalogue has these too."""
_SENTENCE, _PARTS, _TITLED = JOINED
_SURE: Final = 9  # letters that stand fixed in a template which finds its sentence surely
_TELLING: Final = 5  # such letters in a template for what fills a place
_SHORT: Final = 80  # letters of what fills a place of any other
_SIGN: Final = re.compile(r"[.;:] |[.;:]$|, ")
_ASIDE: Final = re.compile(r"([^()]+)( \([^()]+\))")
_PLACE: Final = re.compile(r"\{(\w+)\}")
_END: Final = re.compile(r"(?<=\.) ")


@dataclass(frozen=True)
class Template:
    """A sentence with places: what stands between them, their names, and the sentence in another language."""

    between: tuple[str, ...]
    names: tuple[str, ...]
    said: str

    @cached_property
    def letters(self) -> int:
        """How much of it is fixed: the more, the surer a sentence is of it."""
        return sum(map(str.isalpha, "".join(self.between)))

    def places(self, text: str) -> dict[str, str] | None:
        """Return what fills the places in `text`, each as short as it can be; None: it is another sentence.

        Takes time that grows with the text alone, whatever that holds.
        """
        first, *middle, last = self.between
        if not (text.startswith(first) and text.endswith(last)):
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


def said(code: str, text: str) -> str:
    """Return a sentence of the farm in a language; unknown ones, and English, as they are."""
    return text if code == ENGLISH or not text or len(text) > LONGEST else _said(code, text, 0)


@lru_cache(maxsize=4096)
def _said(code: str, text: str, depth: int) -> str:
    words, known = text.strip(), _known(code)
    if words in known or depth > DEEPEST:
        return known.get(words, text)
    if words.endswith(".") and words[:-1] in known:
        return _joined(code, _SENTENCE, words=known[words[:-1]])
    sentences = _END.split(words)
    for template in _templates(code):
        if template.letters < _SURE and len(sentences) > 1:
            break  # it would take two sentences for one
        places = template.places(words)
        if places is not None and (template.letters >= _SURE or _are_likely(places, template.letters, depth)):
            return template.filled({name: _said(code, value, depth + 1) for name, value in places.items()})
    if len(sentences) > 1:
        return ("" if _is_close(code) else " ").join(_said(code, one, depth + 1) for one in sentences)
    return _by_parts(code, text, depth + 1)


def _are_likely(places: Mapping[str, str], letters: int, depth: int) -> bool:
    """Return whether these may be the places of a template as general as `{1} of {2}`.

    The text in a place may be a name that people gave, which is left alone unless it counts something.
    """
    is_counted = any(value[:1].isdigit() for value in places.values())
    is_short = all(len(value) <= _SHORT and not _SIGN.search(value) for value in places.values())
    return is_short and (depth == 0 or is_counted or letters >= _TELLING)


def _by_parts(code: str, text: str, depth: int) -> str:
    """Return a text with those of its parts that are known."""
    if (words := _halves(code, text, "; ", depth)) is not None:
        return _joined(code, _PARTS, first=words[0], rest=words[1])
    if (words := _halves(code, text, ": ", depth)) is not None:
        return _joined(code, _TITLED, title=words[0], words=words[1])
    if text.endswith(".") and (sentence := _said(code, text[:-1], depth)) != text[:-1]:
        return _joined(code, _SENTENCE, words=sentence)
    if aside := _ASIDE.fullmatch(text):
        parts = [_said(code, part, depth) for part in aside.groups()]
        return "".join(parts) if parts != [*aside.groups()] else text
    return text


def _joined(code: str, form: str, **parts: str) -> str:
    return translations(code).gettext(form) % parts


def _halves(code: str, text: str, sign: str, depth: int) -> tuple[str, str] | None:
    """Return what stands before and behind a sign, in the other language; None: the sign is not there."""
    first, found, rest = text.rpartition(sign) if sign == "; " else text.partition(sign)
    return (_said(code, first, depth), _said(code, rest, depth)) if found else None


@cache
def _is_close(code: str) -> bool:
    """Return whether sentences stand without a space between them, as after `。`."""
    return translations(code).gettext(_SENTENCE) != _SENTENCE


@cache
def _known(code: str) -> Mapping[str, str]:
    """Return the sentences without places by their English."""
    return {english.strip(): said for english, said in _sentences(code) if not _PLACE.search(english)}


@cache
def _templates(code: str) -> list[Template]:
    """Return the sentences with places, those that say most first; of equal ones those that take most apart."""
    made = []
    for english, other in _sentences(code):
        between = _PLACE.split(english.strip())
        if len(between) > 1:
            made.append(Template(tuple(between[::2]), tuple(between[1::2]), other))
    return sorted(made, key=lambda one: (-one.letters, -len(one.names)))


def _sentences(code: str) -> Iterator[tuple[str, str]]:
    for message in catalogue(code):
        is_said = message.id and isinstance(message.id, str) and message.string
        if is_said and any(place.startswith(SOURCES) for place, _ in message.locations):
            yield message.id, message.string
