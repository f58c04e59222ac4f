"""The images of a sweep before any name is looked up: what each changes, with its prompts written out and measured."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Final, NamedTuple

from shared.admission import names, prompts
from shared.admission.accepted import accepted
from shared.admission.axes.expand import Ground, Varied, expanded
from shared.admission.axes.names import WHOLE_PROMPT
from shared.admission.axes.notation import BadValues
from shared.admission.axes.request import KEY, SweepRequest
from shared.admission.axes.values import Value
from shared.errors import FieldError
from shared.params import paths
from shared.params.job_spec import Axis, AxisValue
from shared.params.render import RenderParams
from shared.settings import Limits

_SPELLED: Final = frozenset({"sampler", "schedule", "hires.sampler", "hires.schedule", "hires.upscaler"})
MOST_PROBLEMS: Final = 5  # of images, that a refusal names


class CellPlan(NamedTuple):
    """One image of a sweep: its place on each axis, and its parameters with names in their own spelling."""

    places: tuple[int, ...]
    params: RenderParams
    varied: tuple[str, ...]  # the dotted names of what its axes vary


@dataclass(frozen=True)
class SweepPlan:
    """The axes of a sweep, the slowest first, and its images in order."""

    request: SweepRequest
    axes: tuple[Varied, ...] = ()
    cells: tuple[CellPlan, ...] = ()

    @property
    def described(self) -> tuple[Axis, ...]:
        """Its axes as a job stores them."""
        return tuple(
            Axis(field=one.named.path, values=tuple(AxisValue(title=value.title) for value in one.values), of=one.of)
            for one in self.axes
        )

    def titles(self, cell: CellPlan) -> tuple[str, ...]:
        """Return the titles of an image's values."""
        return tuple(axis.values[place].title for axis, place in zip(self.axes, cell.places, strict=True))

    def located(self, problem: FieldError, cell: CellPlan) -> FieldError:
        """Return a problem of an image, named by the value of an axis that brings it, else by its field."""
        values = [(axis, place) for axis, place in zip(self.axes, cell.places, strict=True)]
        causes = [(axis, place) for axis, place in values if _changes(axis.values[place], problem.field)]
        if len(self.axes) > 1 or len(causes) != 1:
            at = " / ".join(self.titles(cell))
            problem = replace(problem, message=f"{problem.message} (at {at})")
        if len(causes) != 1:
            return problem
        axis, place = causes[0]
        return replace(problem, field=f"{KEY}.axes.{axis.place}.values.{place}")


class Planned(NamedTuple):
    """A sweep's plan, and what is wrong with it."""

    plan: SweepPlan
    problems: tuple[FieldError, ...]


def planned(sweep: SweepRequest, ground: Ground) -> Planned:
    """Return the images of a sweep, and the problems of their names and prompts. Raises Unavailable."""
    unfit = [*_unfit(ground)]
    found = expanded(sweep, ground)
    if unfit or found.problems:
        return Planned(SweepPlan(sweep), (*unfit, *found.problems))
    try:
        plan = SweepPlan(sweep, found.axes, tuple(_cells(found.axes, ground)))
    except BadValues as bad:  # of several axes together
        return Planned(SweepPlan(sweep), (FieldError(f"{KEY}.axes", str(bad), bad.accepted),))
    return Planned(plan, first_problems(plan, _Checks(ground.limits).of))


def first_problems(plan: SweepPlan, check: Callable[[CellPlan], Iterable[FieldError]]) -> tuple[FieldError, ...]:
    """Return the first problems that `check` finds with images, one of each value; no more than a person reads."""
    found: dict[str, FieldError] = {}
    for cell in plan.cells:
        for problem in check(cell):
            located = plan.located(problem, cell)
            found.setdefault(located.field, located)
            if len(found) == MOST_PROBLEMS:
                return tuple(found.values())
    return tuple(found.values())


def _unfit(ground: Ground) -> Iterator[FieldError]:
    """Yield what no job with a sweep can have."""
    if ground.params.count != 1:
        yield FieldError("count", "has no effect beside a sweep", "1; an axis `seed` makes several images of each kind")
    if ground.params.upscale is not None:
        yield FieldError(KEY, "has no effect on a job that enlarges pictures", "no sweep beside upscale")
    for name, text in ground.params.of_kind("prompt").items():
        if len(text) > ground.limits.max_prompt_chars:
            yield FieldError(name, f"is {len(text):,} characters long", accepted(name, ground.limits))


def _cells(axes: Sequence[Varied], ground: Ground) -> Iterator[CellPlan]:
    """Yield the images in order; the last axis varies fastest."""
    own = {path for path, text in ground.params.of_kind("prompt").items() if text or "." not in path}
    apply = sorted(range(len(axes)), key=lambda at: axes[at].named.path not in WHOLE_PROMPT)
    is_edited = any(value.edit or value.styles for axis in axes for value in axis.values)
    for places in product(*(range(len(axis.values)) for axis in axes)):
        values = [axes[at].values[places[at]] for at in apply]
        changes: dict[str, object] = {name: one for value in values for name, one in value.changes.items()}
        for path in own if is_edited else ():
            text = str(changes.get(path, paths.get(ground.params, path)))
            for value in values:
                text = value.edit(path, text) if value.edit else text
            changes[path] = text
        changes["styles"] = (*ground.params.styles, *(style for value in values for style in value.styles))
        params = paths.replaced(ground.params, changes)
        if _SPELLED & changes.keys():
            params = names.spelled(params)
        if params.styles:
            params = prompts.styled(params, ground.styles, ground.limits)
        varied = {*changes, *own} if is_edited or params.styles else {*changes}
        yield CellPlan(places, params, tuple(sorted(varied - {"styles"})))


def _changes(value: Value, field: str) -> bool:
    """Return whether a value of an axis changes a field."""
    return field in value.changes or (bool(value.edit or value.styles) and field.endswith("prompt"))


@dataclass
class _Checks:
    """Checks what needs no catalogue; what is equal in several images is checked once."""

    limits: Limits
    named: dict[Hashable, tuple[FieldError, ...]] = field(default_factory=dict)
    read: dict[Hashable, tuple[FieldError, ...]] = field(default_factory=dict)

    def of(self, cell: CellPlan) -> Iterator[FieldError]:
        """Yield what is wrong with the names of samplers and schedules of an image, and with its prompts."""
        params = cell.params
        hires = params.hires
        key = (params.sampler, params.schedule, hires and (hires.sampler, hires.schedule))
        if key not in self.named:
            self.named[key] = tuple(names.misnamed(params))
        yield from self.named[key]
        if (texts := reading(params)) not in self.read:
            self.read[texts] = tuple(prompts.unreadable(params, self.limits))
        yield from self.read[texts]


def reading(params: RenderParams) -> Hashable:
    """Return what decides on how long the prompts of an image are."""
    texts, hires = params.of_kind("prompt"), params.hires
    if any("[" in text for text in texts.values()):  # edits count the calls of a pass
        passes = (params.sampler, params.steps, hires and (hires.sampler, hires.steps))
        return params.emphasis, tuple(texts.items()), passes
    return params.emphasis, tuple(texts.items())
