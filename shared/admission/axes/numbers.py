"""Numbers of an axis as people type them: `7`, `1-5`, `1-10(+2)`, `10-1(-3)`, `1-10[5]`, `7-25.5[4]`."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, NamedTuple

from shared.admission.axes.notation import MOST_VALUES, BadValues, too_many
from shared.wording import LONGEST

_NUMBER: Final = r"[+-]?(?:[0-9]{1,20}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})"
_ONE: Final = re.compile(_NUMBER)
_RANGE: Final = re.compile(
    rf"(?P<first>{_NUMBER})\s*-\s*(?P<last>{_NUMBER})\s*"
    rf"(?:\(\s*(?P<step>{_NUMBER})\s*\)|\[\s*(?P<count>[0-9]{{1,20}})\s*\])?"
)
_LONGEST: Final = 100  # characters of a number or a range
_PLACES: Final = Decimal("0.0001")  # of numbers that are spread evenly
FORMS: Final = "numbers and ranges such as 7, 1-5, 1-10(+2), 10-1(-3), 1-10[5]"


class Grid(NamedTuple):
    """Which numbers a parameter takes."""

    is_whole: bool
    multiple: int = 1  # of whole numbers

    def nearest(self, number: Decimal) -> Decimal:
        """Return the number that can be taken and is nearest, of those that are spread evenly."""
        if not self.is_whole:
            return number.quantize(_PLACES)
        return (number / self.multiple).quantize(Decimal(1), ROUND_HALF_UP) * self.multiple


def numbers(text: str, grid: Grid) -> list[int | float]:
    """Return the numbers that one value of an axis stands for. Raises BadValues."""
    found = _RANGE.fullmatch(text) if len(text) <= _LONGEST else None
    if found is not None:
        return [_taken(one, grid) for one in _spread(found, grid)]
    if len(text) > _LONGEST or not _ONE.fullmatch(text):
        raise BadValues(f"holds {text[:LONGEST]!r}, which is neither a number nor a range", FORMS)
    return [_taken(Decimal(text), grid)]


def _taken(number: Decimal, grid: Grid) -> int | float:
    if not grid.is_whole:
        return float(number)
    if number != number.to_integral_value():
        raise BadValues(f"holds {number:f}, which is not a whole number", "whole numbers")
    return int(number)


def _spread(found: re.Match[str], grid: Grid) -> list[Decimal]:
    """Return the numbers of a range, which are counted before any is made."""
    first, last = Decimal(found["first"]), Decimal(found["last"])
    if found["count"] is None:
        return _stepped(first, last, found)
    count = int(found["count"])
    if count < 1:
        raise BadValues(f"holds {found[0]!r}, a range of no values", f"1 to {MOST_VALUES} values, such as 1-10[5]")
    if count > MOST_VALUES:
        raise too_many(count)
    if count == 1:
        return [first]
    spread = [grid.nearest(first + (last - first) * place / (count - 1)) for place in range(count)]
    if len(set(spread)) < count:
        what = "whole numbers" if grid.multiple == 1 else f"multiples of {grid.multiple}"
        message = f"holds {found[0]!r}, and there are only {len(set(spread))} {what} to spread"
        raise BadValues(message, f"at most {len(set(spread))} in the brackets")
    return spread


def _stepped(first: Decimal, last: Decimal, found: re.Match[str]) -> list[Decimal]:
    falls = last < first
    step = Decimal(found["step"]) if found["step"] else Decimal(-1 if falls else 1)
    if step == 0 or (falls != (step < 0) and first != last):
        sign = "-" if falls else "+"
        message = f"holds {found[0]!r}, whose steps never arrive at {last:f}"
        raise BadValues(message, f"a step that leads there, such as {first:f}-{last:f}({sign}2)")
    count = int((last - first) / step) + 1
    if count > MOST_VALUES:
        raise too_many(count)
    return [first + step * place for place in range(count)]
