"""What a run finds: one measure a line of its table, and what of it fails the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

GATES: Final = frozenset({2, 3, 4, 8})  # parts whose targets are of correctness, memory and trouble: to miss one fails
MAY_BE_CUT: Final = frozenset({6})  # parts that may be stopped at their limit: they measure what matters most first
ENDING: Final = "the part itself"


@dataclass(frozen=True)
class Measure:
    """Something that was measured or checked."""

    part: int
    name: str
    value: float | str
    unit: str = ""
    target: str = ""
    is_ok: bool | None = None  # None: it has no target
    of_roofline: float | None = None  # share of what this very card was measured to reach
    of_peer: float | None = None  # ratio to the same work by diffusers in the same run
    traceback: str = ""  # of what ended the part

    @property
    def is_failure(self) -> bool:
        """Whether it fails the run: a missed target of a gate, or a part that an error ended or its limit."""
        is_stopped = self.name == ENDING and self.part not in MAY_BE_CUT
        return self.is_ok is False and (self.part in GATES or is_stopped or bool(self.traceback))


def failures(measures: Iterable[Measure]) -> list[Measure]:
    """Return the measures that fail the run."""
    return [measure for measure in measures if measure.is_failure]


def found(measures: Iterable[Measure]) -> dict[str, float]:
    """Return the numbers that were measured, by name."""
    return {one.name: one.value for one in measures if isinstance(one.value, float | int)}
