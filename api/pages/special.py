"""Differences that make a job special: how it differs from the job before, or from what jobs usually are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from api.languages import _
from api.pages.fields import FIELDS, RESOLVED, printed
from api.pages.parameter_table import words
from api.schemas.jobs import JobBody
from shared.params import paths

MOST: Final = 4
"""Differences that are shown; the page of the job has all."""
_LONGEST: Final = 40
_SHOWN: Final = frozenset({"prompt", "count", "noise.variation_seed"})
"""Fields that are never shown: they are seen anyway, or drawn for each job."""
_USUAL: Final = _SHOWN | {"seed", "width", "height", "checkpoint"}
"""Fields that are not compared with the defaults: each job has some value."""


def of_jobs(jobs: Sequence[JobBody]) -> dict[int, list[str]]:
    """Return what is special about each job by its id; `jobs` are in order, the latest first."""
    before = {job.id: older for job, older in pairwise(jobs)}
    return {job.id: special(job, before.get(job.id)) for job in jobs}


def special(job: JobBody, before: JobBody | None) -> list[str]:
    """Return in a few words how a job differs from the one before, if that has the same prompt, else from the defaults.

    `CFG scale 15, was 7`; `Steps 30`.
    """
    if job.params.upscale:
        return []
    if job.axes:
        return [f"{printed(axis.label)} {_short(', '.join(axis.values))}" for axis in job.axes]
    is_sibling = before is not None and not before.params.upscale and before.params.prompt == job.params.prompt
    found = list(_changes(job, before) if before and is_sibling else _settings(job))
    return [*found[:MOST], *([_("%(num)s more", num=len(found) - MOST)] if found[MOST:] else [])]


def _changes(job: JobBody, before: JobBody) -> Iterator[str]:
    mine, other = job.params.model_dump(), before.params.model_dump()
    for name, field in FIELDS.items():
        value, was = paths.get(mine, name), paths.get(other, name)
        if value == was or name in _SHOWN or field.parameter.takes.kind == "picture":
            continue
        if name == "seed" and {**mine, "seed": 0} != {**other, "seed": 0}:
            continue
        yield _(
            "%(field)s %(value)s, was %(before)s",
            field=field.label,
            value=_short(words(field, value)),
            before=_short(words(field, was)),
        )


def _settings(job: JobBody) -> Iterator[str]:
    params = job.params.model_dump()
    for name, field in FIELDS.items():
        value, default = paths.get(params, name), field.parameter.default
        is_usual = value in (None, default, RESOLVED.get(name)) or field.parameter.takes.kind == "picture"
        is_used = "." not in name or paths.get(params, name.rpartition(".")[0]) is not None
        if not is_usual and name not in _USUAL and is_used:
            yield f"{field.label} {_short(words(field, value))}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
