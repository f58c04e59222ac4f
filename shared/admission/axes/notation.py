"""The values of an axis as people type them: a list with commas between, quoted where a value has a comma itself."""

from __future__ import annotations

from typing import Final, NamedTuple

MOST_VALUES: Final = 200  # of an axis
_QUOTE: Final = '"'
_SEPARATORS: Final = ",\n"


class BadValues(ValueError):
    """Values of an axis that cannot be used; the message says why, and `accepted` what would be right.

    `place` is that of the value among those of its axis, or None.
    """

    def __init__(self, message: str, accepted: str, place: int | None = None) -> None:
        super().__init__(message)
        self.accepted = accepted
        self.place = place


class Item(NamedTuple):
    """One value as it was typed."""

    text: str
    is_quoted: bool = False


def items(text: str) -> list[Item]:
    r"""Return the values in a text: `7, "a, b"` are two. A line ends a value too, and `""` in quotes is a quote.

    An empty place between two commas is left out; a quoted nothing is a value. Raises BadValues for more than
    MOST_VALUES, without reading the rest.
    """
    found: list[Item] = []
    place = 0
    while place < len(text):
        if text[place].isspace() or text[place] in _SEPARATORS:
            place += 1
            continue
        item, place = _quoted(text, place) if text[place] == _QUOTE else _plain(text, place)
        found.append(item)
        if len(found) > MOST_VALUES:
            raise too_many()
    return found


def too_many(count: int | None = None) -> BadValues:
    """Return the refusal of an axis with too many values; None: they were not all counted."""
    how_many = f"more than {MOST_VALUES}" if count is None else f"{count:,}"
    return BadValues(f"has {how_many} values", f"at most {MOST_VALUES} values on an axis")


def _plain(text: str, start: int) -> tuple[Item, int]:
    ends = (text.find(sign, start) for sign in _SEPARATORS)
    end = min((one for one in ends if one >= 0), default=len(text))
    return Item(text[start:end].strip()), end + 1


def _quoted(text: str, start: int) -> tuple[Item, int]:
    """Return the value between quotes from `start` on. Raises BadValues if they are not closed, or text follows."""
    parts, place = [], start + 1
    while (end := text.find(_QUOTE, place)) >= 0:
        parts.append(text[place:end])
        if not text.startswith(_QUOTE, end + 1):
            break
        parts.append(_QUOTE)
        place = end + 2
    else:
        raise BadValues("opens a quote that it does not close", 'a value with commas in quotes, such as "a, b"')
    rest, after = _plain(text, end + 1) if end + 1 < len(text) and text[end + 1] not in _SEPARATORS else (None, end + 2)
    if rest is not None and rest.text:
        raise BadValues(f"has {rest.text[:20]!r} behind a quote", 'a comma between two values, such as "a, b", c')
    return Item("".join(parts), is_quoted=True), after
