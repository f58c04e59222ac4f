"""The nine parts of a run, and how many seconds each may take."""

from __future__ import annotations

from typing import Final, NamedTuple


class Part(NamedTuple):
    """One part: a module of this package whose `run` takes a bench."""

    name: str
    limit_seconds: float


PARTS: Final = (
    Part("machine", 15),
    Part("weights", 25),
    Part("tests", 40),
    Part("correctness", 70),
    Part("memory", 45),
    Part("switch", 50),
    Part("speed", 150),
    Part("latency", 25),
    Part("trouble", 45),
)


def chosen(text: str) -> tuple[int, ...]:
    """Return the numbers in "3,4", in order. Raises ValueError that says what there is."""
    try:
        numbers = tuple(sorted({int(number) for number in text.split(",")}))
    except ValueError:
        raise ValueError(f"{text!r} names no parts: write their numbers, such as 3,4") from None
    if unknown := [number for number in numbers if not 0 <= number < len(PARTS)]:
        raise ValueError(f"there is no part {unknown[0]}: they are 0 to {len(PARTS) - 1}")
    return numbers
