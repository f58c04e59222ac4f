"""Names of samplers and schedules, put in their own spelling or refused with the nearest ones; and of upscalers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shared.errors import FieldError
from shared.params import upscalers
from shared.params.render import RenderParams
from shared.params.samplers import AUTOMATIC, SAMPLERS, SCHEDULES
from shared.params.spellings import home, named, schedule_named
from shared.suggest import nearest
from shared.wording import LONGEST, choices


class _Pass(NamedTuple):
    """Sampler and schedule of one pass; None for an unknown name, empty for the first pass's."""

    sampler: str | None
    schedule: str | None


def spelled(params: RenderParams) -> RenderParams:
    """Return the parameters with names in their own spelling; an unknown name stays as it was given.

    The schedule of an old combined name ("DPM++ 2M Karras") counts if the request names no other.
    """
    changes = _known(_first(params))
    hires = params.hires
    if hires is not None:
        upscaler = upscalers.spelled(hires.upscaler) or hires.upscaler
        changes["hires"] = hires.model_copy(update=_known(_second(params)) | {"upscaler": upscaler})
    return params.model_copy(update=changes)


def misnamed(params: RenderParams) -> Iterator[FieldError]:
    """Yield the unknown names of samplers and schedules, and schedules that a sampler cannot use."""
    first, hires = _first(params), params.hires
    yield from _wrong("", first, _Pass(params.sampler, params.schedule), first)
    if hires is None:
        return
    second = _second(params)
    in_all = _Pass(_or(second.sampler, first.sampler), _or(second.schedule, first.schedule))
    if in_all != first:
        yield from _wrong("hires.", second, _Pass(hires.sampler, hires.schedule), in_all)


def _wrong(group: str, found: _Pass, given: _Pass, in_all: _Pass) -> Iterator[FieldError]:
    """Yield the problems of the names of one pass, and of `in_all`, the names that it would be rendered with."""
    if found.sampler is None:
        yield _unknown(f"{group}sampler", str(given.sampler), SAMPLERS)
    if found.schedule is None:
        yield _unknown(f"{group}schedule", str(given.schedule), SCHEDULES)
    elif in_all.sampler and in_all.schedule and in_all.schedule not in (takes := SAMPLERS[in_all.sampler].schedules):
        message = f"{in_all.sampler} cannot use the schedule {in_all.schedule}"
        yield FieldError(f"{group}schedule", message, choices(takes))


def _first(params: RenderParams) -> _Pass:
    return _found(params.sampler, params.schedule)


def _second(params: RenderParams) -> _Pass:
    """Return the meaning of the second pass's names; each may be empty."""
    if params.hires is None:
        return _Pass("", "")
    sampler, schedule = params.hires.sampler, params.hires.schedule
    found = _found(sampler, schedule or AUTOMATIC)
    if not schedule and found.schedule == AUTOMATIC:
        found = found._replace(schedule="")
    return found if sampler else found._replace(sampler="")


def _found(sampler: str, schedule: str) -> _Pass:
    """Return the meaning of two names; the schedule of a combined name counts if the other is `automatic`."""
    combined = named(sampler) if len(sampler) <= LONGEST else None
    own = schedule_named(schedule[:LONGEST])
    other = combined.schedule if combined else None
    return _Pass(combined and combined.sampler, other if other and own == AUTOMATIC else own)


def _known(found: _Pass) -> dict[str, object]:
    """Return the known names, as changes of parameters."""
    return {name: value for name, value in found._asdict().items() if value is not None}


def _or(second: str | None, first: str | None) -> str | None:
    """Return the second pass's name, or the first pass's if it is empty."""
    return first if second == "" else second


def _unknown(field: str, text: str, names: Iterable[str]) -> FieldError:
    known, kind = [*names], field.rpartition(".")[2]
    message = f"There is no {kind} {text[:LONGEST]!r}"
    if kind == "sampler" and (program := home(text)):  # the nearest name by its letters would be another sampler
        return FieldError(field, f"{message} here: it is {program}'s", choices(known))
    return FieldError(field, message, choices(nearest(text, known) or known))
