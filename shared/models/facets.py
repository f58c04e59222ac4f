"""Filters of a list of model files, and how many files each choice of a filter would show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self, get_args

from shared.errors import FieldError, Refused
from shared.models.architectures import ARCHITECTURES
from shared.models.inspection import Prediction
from shared.models.kinds import KINDS
from shared.wording import LONGEST, choices

Facets = Mapping[str, Collection[str]]
FACETS: Final[Facets] = {"architecture": ARCHITECTURES, "prediction": get_args(Prediction)}
"""Filters of checkpoints, each with the values that this version knows."""
FACETS_OF_ALL: Final[Facets] = {"kind": KINDS, **FACETS}
"""Filters of files of all kinds."""


class Group(NamedTuple):
    """How many files have these values of the facets."""

    kind: str
    architecture: str | None
    prediction: str | None
    files: int


@dataclass(frozen=True)
class Faceted:
    """A list of model files with filters, counted."""

    wanted: dict[str, str]  # facet -> value; empty: any
    counts: dict[str, dict[str, int]]  # facet -> value -> files of that value that the other filters let through
    passing: int  # files that pass all filters
    total: int  # files before any filter

    @classmethod
    def of(cls, groups: Sequence[Group], wanted: Mapping[str, str | None], facets: Facets = FACETS) -> Self:
        """Return the list with the wanted values of facets; None or empty: any. Raises Refused for unknown values.

        A value that only a newer version knows can be wanted if a file has it.
        """
        values = {facet: (wanted.get(facet) or "").strip().casefold() for facet in facets}
        known = {facet: _known(facet, known, groups) for facet, known in facets.items()}
        unknown = [facet for facet, value in values.items() if value and value not in known[facet]]
        if unknown:
            problems = tuple(_problem(facet, values[facet], known[facet]) for facet in unknown)
            raise Refused(f"{problems[0].message}.", problems)
        counts = {facet: _counted(facet, known[facet], groups, values) for facet in facets}
        return cls(values, counts, _files(_passing(groups, values)), _files(groups))


def _known(facet: str, known: Iterable[str], groups: Sequence[Group]) -> list[str]:
    found = (getattr(group, facet) for group in groups)
    return list(dict.fromkeys([*known, *filter(None, found)]))


def _problem(facet: str, value: str, known: Sequence[str]) -> FieldError:
    return FieldError(facet, f"There is no {facet} {value[:LONGEST]!r}", choices(known))


def _passing(groups: Sequence[Group], values: dict[str, str]) -> list[Group]:
    return [one for one in groups if all(not value or getattr(one, name) == value for name, value in values.items())]


def _files(groups: Iterable[Group]) -> int:
    return sum(group.files for group in groups)


def _counted(facet: str, known: Iterable[str], groups: Sequence[Group], values: dict[str, str]) -> dict[str, int]:
    """Return how many files there are of each value that any file has, with the other filters as they are."""
    passing = Counter[str | None]()
    for group in _passing(groups, values | {facet: ""}):
        passing[getattr(group, facet)] += group.files
    there = {getattr(group, facet) for group in groups}
    return {value: passing[value] for value in known if value in there}
