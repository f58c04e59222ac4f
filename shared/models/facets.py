"""Filters of a list of checkpoints, and how many files each choice of a filter would show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Self, get_args

from shared.errors import FieldError, Refused
from shared.models.architectures import ARCHITECTURES
from shared.models.catalogue import Entry
from shared.models.inspection import Prediction
from shared.wording import LONGEST, choices

FACETS: Final[dict[str, Collection[str]]] = {"architecture": ARCHITECTURES, "prediction": get_args(Prediction)}
"""What can be filtered by, and the values that this version knows."""


@dataclass(frozen=True)
class Faceted:
    """A list of checkpoints that was filtered."""

    files: list[Entry]
    wanted: dict[str, str]  # facet -> value; empty: any
    counts: dict[str, dict[str, int]]  # facet -> value -> files of that value that the other filters let through
    total: int  # files before any filter

    @classmethod
    def of(cls, files: Sequence[Entry], **wanted: str | None) -> Self:
        """Return the `files` with the wanted values of facets; None or empty: any. Raises Refused for unknown values.

        A value that only a newer version knows can be wanted if a file has it.
        """
        values = {facet: (wanted.get(facet) or "").strip().casefold() for facet in FACETS}
        known = {facet: _known(facet, files) for facet in FACETS}
        unknown = [facet for facet, value in values.items() if value and value not in known[facet]]
        if unknown:
            problems = tuple(_problem(facet, values[facet], known[facet]) for facet in unknown)
            raise Refused(f"{problems[0].message}.", problems)
        return cls(
            _passing(files, values), values, {facet: _counted(facet, files, values) for facet in FACETS}, len(files)
        )


def _known(facet: str, files: Sequence[Entry]) -> list[str]:
    found = (getattr(file, facet) for file in files)
    return list(dict.fromkeys([*FACETS[facet], *filter(None, found)]))


def _problem(facet: str, value: str, known: Sequence[str]) -> FieldError:
    return FieldError(facet, f"There is no {facet} {value[:LONGEST]!r}", choices(known))


def _passing(files: Sequence[Entry], values: dict[str, str]) -> list[Entry]:
    return [file for file in files if all(not value or getattr(file, name) == value for name, value in values.items())]


def _counted(facet: str, files: Sequence[Entry], values: dict[str, str]) -> dict[str, int]:
    """Return how many files there are of each value that any file has, with the other filters as they are."""
    passing = Counter(getattr(file, facet) for file in _passing(files, values | {facet: ""}))
    return {
        value: passing[value] for value in _known(facet, files) if any(getattr(file, facet) == value for file in files)
    }
