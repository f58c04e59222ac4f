"""The page on samplers says what the farm's facts say."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

import pytest

from shared.params.samplers import AUTOMATIC, SAMPLERS, SCHEDULE_OPTIONS, SCHEDULES, Sampler

PAGE = (Path(__file__).parents[2] / "docs/samplers.md").read_text().splitlines()


def sampler_row(facts: Sampler) -> str:
    """The line of a sampler in docs/samplers.md."""
    own = SCHEDULES.get(facts.automatic, "its own")
    others = "all" if len(facts.schedules) > 1 else "none"
    options = ", ".join(f"{option} ({facts.default_eta:g})" if option == "eta" else option for option in facts.options)
    calls = f"about {facts.calls(20)} at most" if facts.is_adaptive else str(facts.calls(20))
    noise = "Brownian" if facts.uses_brownian else "fresh" if facts.is_ancestral else ""
    aliases = ", ".join(f"`{alias}`" for alias in facts.aliases)
    return f"| {facts.name} | {aliases} | {own} | {others} | {facts.order} | {calls} | {noise} | {options} |"


def schedule_row(name: str) -> str:
    """The line of a schedule, except for its words."""
    return f"| `{name}` | {SCHEDULES[name]} | {', '.join(SCHEDULE_OPTIONS.get(name, ()))} |"


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_is_documented(name: str) -> None:
    assert sampler_row(SAMPLERS[name]) in PAGE


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_documented(name: str) -> None:
    assert any(line.startswith(schedule_row(name)) for line in PAGE)


def first_column(heading: str) -> list[str]:
    """The names in the table whose first column has this heading."""
    start = next(number for number, line in enumerate(PAGE) if line.startswith(f"| {heading} |"))
    rows = takewhile(lambda line: line.startswith("|"), PAGE[start + 2 :])
    return [re.match(r"\| `?([^|`]+?)`? \|", row)[1] for row in rows]


def test_nothing_else_is_documented() -> None:
    assert first_column("Sampler") == list(SAMPLERS)
    assert first_column("Schedule") == [AUTOMATIC, *(name for name in SCHEDULES if name != AUTOMATIC)]
