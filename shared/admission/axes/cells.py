"""Admission of a sweep: every image is checked as a job of its own would be, and what is equal in several only once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import SystemRandom
from typing import Any, Final, NamedTuple

from shared.admission import no_effect, outpainting, ranges, sizes
from shared.admission.axes.expand import RANDOM_SEEDS
from shared.admission.axes.plan import CellPlan, SweepPlan, first_problems, reading
from shared.admission.named_models import NamedModels
from shared.errors import FieldError
from shared.jobs import stored
from shared.models.catalogue import Catalogue
from shared.models.model_set import ModelSet
from shared.params import paths
from shared.params.fields import MAX_SEED, RANDOM_SEED
from shared.params.groups import Guidance, Noise, Sampling
from shared.params.job_spec import Axis
from shared.params.render import RenderParams
from shared.queue.submit import Cell
from shared.settings import Limits

_RANDOM: Final = SystemRandom()
_MOST_NOTES: Final = 10
_COMPLETED: Final = ("width", "height", "seed", "noise.variation_seed", "sampler", "schedule")
_SECOND: Final = ("hires.sampler", "hires.schedule", "hires.upscaler")
_PLAIN: Final = {"cfg_scale": 7.0, "seed": 0, "clip_skip": 1, "width": 0, "height": 0, "styles": ()} | {
    "sampling": Sampling(), "guidance": Guidance(), "noise": Noise()
}  # fmt: skip
"""What no model file depends on."""


class Admitted(NamedTuple):
    """The images of a sweep, complete, with the parameters and models of the job; or what is wrong with them."""

    params: RenderParams
    models: ModelSet | None = None
    cells: tuple[Cell, ...] = ()
    axes: tuple[Axis, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[FieldError, ...] = ()


class _Complete(NamedTuple):
    """One image: its complete parameters, and the model files that they name."""

    params: RenderParams
    named: NamedModels


@dataclass
class _Lookup:
    """Looks up the model files of images; those that name the same are looked up once."""

    catalogue: Catalogue
    limits: Limits
    found: dict[object, NamedModels] = field(default_factory=dict)

    def of(self, params: RenderParams) -> NamedModels:
        """Return the model files that the parameters of an image name."""
        key = (_naming(params), reading(params))
        if key not in self.found:
            self.found[key] = NamedModels.found(self.catalogue, params, self.limits)
        return self.found[key]


def admitted(
    plan: SweepPlan, base: RenderParams, source: sizes.Size | None, catalogue: Catalogue, limits: Limits
) -> Admitted:
    """Return the images of a sweep; `base` are the parameters of its request, `source` the size of what it starts from.

    Raises NotLooked.
    """
    lookup, complete = _Lookup(catalogue, limits), list[_Complete]()
    seeds = {path: _drawn(base, path) for path in ("seed", "noise.variation_seed")}

    def check(cell: CellPlan) -> Iterator[FieldError]:
        named = lookup.of(cell.params)
        size = sizes.resolved(cell.params, source, sizes.native(named.checkpoint), limits)
        changes = {**named.titles, **_seeds(plan, cell.params, seeds, len(complete))}
        params = paths.replaced(cell.params, changes | {"width": size[0], "height": size[1]})
        complete.append(_Complete(params, named))
        yield from named.problems
        yield from outpainting.impossible(cell.params, source, limits)
        yield from ranges.beyond(params, limits)

    problems = [*_last_seed(plan, base, seeds), *first_problems(plan, check)]
    if problems or not complete:
        return Admitted(base, problems=tuple(problems))
    first = complete[0]
    params = _job(first.params, base, len(complete))
    changes = _changes(plan, params, complete)
    cells = [Cell(one, some.params, some.named.models) for one, some in zip(changes, complete, strict=True)]
    note = sizes.explanation(base, (first.params.width, first.params.height), source, _native(first), limits)
    notes = dict.fromkeys([*filter(None, [note]), *_notes(complete)])
    return Admitted(params, first.named.models, tuple(cells), plan.described, tuple(islice(notes, _MOST_NOTES)))


def _naming(params: RenderParams) -> RenderParams:
    """Return parameters that are equal where the same model files are named, apart from what prompts say."""
    groups: dict[str, Any] = {"steps": 1, "sampler": "", "schedule": ""}
    if params.hires is not None:
        groups["hires"] = params.hires.model_copy(
            update={"scale": 1.0, "width": 0, "height": 0, "steps": 0, "denoising": 0.0, "sampler": "", "schedule": ""}
        )
    if params.img2img is not None:
        groups["img2img"] = params.img2img.model_copy(update={"denoising": 0.0})
    if params.refiner is not None:
        groups["refiner"] = params.refiner.model_copy(update={"switch_at": 0.0})
    return params.model_copy(update=_PLAIN | groups)


def _drawn(base: RenderParams, path: str) -> int:
    """Return the seed of a request, or one that is drawn for all its images."""
    given: int = paths.get(base, path)
    return _RANDOM.randrange(RANDOM_SEEDS) if given == RANDOM_SEED else given


def _seeds(plan: SweepPlan, params: RenderParams, drawn: dict[str, int], index: int) -> dict[str, int]:
    """Return the seeds of an image; with a variation strength the variation seed counts up, and the first one stays."""
    leans = params.noise.variation_strength > 0
    counted = "noise.variation_seed" if leans else "seed"
    found = {}
    for path in ("seed", "noise.variation_seed") if leans else ("seed",):
        given = paths.get(params, path)
        up = index if plan.request.seeds == "each" and path == counted else 0
        found[path] = (drawn[path] if given == RANDOM_SEED else given) + up
    return found


def _last_seed(plan: SweepPlan, base: RenderParams, seeds: dict[str, int]) -> Iterator[FieldError]:
    """Yield the seed that would pass the largest one where each image has its own."""
    path = "noise.variation_seed" if base.noise.variation_strength > 0 else "seed"
    if plan.request.seeds == "each" and seeds[path] + len(plan.cells) - 1 > MAX_SEED:
        message = f"the last of {len(plan.cells)} images would pass {MAX_SEED}"
        yield FieldError(path, message, f"at most {MAX_SEED - len(plan.cells) + 1}")


def _job(first: RenderParams, base: RenderParams, count: int) -> RenderParams:
    """Return the parameters of the whole job: those of its first image, with the prompts as they were asked for.

    Prompts of which one means nothing before its choices are made give way to the first image's.
    """
    asked = paths.replaced(first, {**base.of_kind("prompt"), "count": count})
    if stored.understood(stored.written(asked)).unknown:
        return first.model_copy(update={"count": count})
    return asked


def _changes(plan: SweepPlan, params: RenderParams, complete: Sequence[_Complete]) -> list[dict[str, Any]]:
    """Return what each image changes of the job's parameters: of all that differ somewhere, its own value."""
    names = {*_COMPLETED, *(name for cell in plan.cells for name in cell.varied)}
    names |= {name for one in complete for name in one.named.titles}
    names |= {*_SECOND} if params.hires else set()
    values = {name: [paths.get(one.params, name) for one in complete] for name in sorted(names)}
    differing = {name: some for name, some in values.items() if any(one != paths.get(params, name) for one in some)}
    return [{name: some[index] for name, some in differing.items()} for index in range(len(complete))]


def _native(one: _Complete) -> int:
    return sizes.native(one.named.checkpoint)


def _notes(complete: Sequence[_Complete]) -> Iterator[str]:
    """Yield what the owner should know: of the first and the last image of each kind of checkpoints."""
    for order in (complete, complete[::-1]):
        for one in {some.named.architectures: some for some in order}.values():
            yield from no_effect.notes(one.params, one.named.architectures)
    for named in {id(one.named): one.named for one in complete}.values():
        yield from named.notes
