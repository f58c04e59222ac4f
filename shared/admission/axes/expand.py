"""A sweep as it was asked for becomes axes with values, the dearest first; nothing is made that is too much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from random import SystemRandom
from typing import Final, NamedTuple

from shared.admission.axes import adapters, dynamic
from shared.admission.axes import prompts as axes_of_prompts
from shared.admission.axes.names import WHOLE_PROMPT, Named, named
from shared.admission.axes.notation import BadValues
from shared.admission.axes.request import KEY, MOST_CELLS, AxisRequest, SweepRequest
from shared.admission.axes.values import Reader, Value, given_items, text_of, titled
from shared.admission.axes.wildcards import Wildcards
from shared.errors import FieldError
from shared.params.fields import RANDOM_SEED
from shared.params.job_spec import SPECIAL
from shared.params.render import RenderParams
from shared.params.samplers import AUTOMATIC, SCHEDULES
from shared.params.spellings import named as sampler_named
from shared.prompts.styles import Style
from shared.settings import Limits
from shared.suggest import nearest
from shared.wording import LONGEST, choices

RANDOM_SEEDS: Final = 2**32  # few enough digits to read out; any seed up to MAX_SEED can be given
_RANDOM: Final = SystemRandom()
_WITHOUT: Final = "none"
_SHOWN: Final = 5
_SAME: Final = {"size": {"width", "height"}, "sampler_schedule": {"sampler", "schedule"}, "lora_name": {"lora"}}
"""Axes that vary the same as others."""


class Varied(NamedTuple):
    """One axis of a sweep with its values."""

    place: int  # in the request
    named: Named
    values: tuple[Value, ...]
    of: str = ""


@dataclass(frozen=True)
class Ground:
    """What the values of axes are read by: the job around them, and the texts that the farm knows."""

    params: RenderParams
    limits: Limits
    styles: Mapping[str, Style]
    wildcards: Wildcards

    @property
    def prompts(self) -> list[str]:
        """The prompts of the job that are not empty."""
        return list(filter(None, self.params.of_kind("prompt").values()))


class Expansion(NamedTuple):
    """The axes of a sweep, the one that varies slowest first, and what is wrong with others."""

    axes: tuple[Varied, ...]
    problems: tuple[FieldError, ...]


def expanded(sweep: SweepRequest, ground: Ground) -> Expansion:
    """Return the axes of a sweep. Raises Unavailable if a file of wildcards cannot be read."""
    problems: list[FieldError] = []
    wanted: dict[int, Named] = {}
    for place, axis in enumerate(sweep.axes):
        try:
            wanted[place] = named(axis.field, ground.params)
        except BadValues as bad:
            problems.append(FieldError(f"{KEY}.axes.{place}.field", str(bad), bad.accepted))
    problems += _contradictions(wanted, sweep)
    if problems:
        return Expansion((), tuple(problems))
    axes: list[Varied] = []
    # Axes of whole prompts come first: the others change what these say.
    for place in sorted(wanted, key=lambda place: wanted[place].path not in WHOLE_PROMPT):
        axis, meant = sweep.axes[place], wanted[place]
        try:
            values = _values(meant, axis, ground, [value for one in axes for value in one.values])
        except BadValues as bad:
            at = f"{KEY}.axes.{place}.values" + ("" if bad.place is None else f".{bad.place}")
            problems.append(FieldError(at, str(bad), bad.accepted))
        else:
            axes.append(Varied(place, meant, tuple(values), axis.of.strip() if meant.path != "dynamic_prompts" else ""))
    if not problems:
        problems += _too_many(axes, ground.limits)
    ordered = sorted(axes, key=lambda axis: (axis.named.rank, axis.place))
    return Expansion(tuple(ordered), tuple(problems))


def _too_many(axes: list[Varied], limits: Limits) -> Iterator[FieldError]:
    """Yield the problem of more images than a job may have."""
    most, count = min(MOST_CELLS, limits.max_count), prod(len(axis.values) for axis in axes)
    if count > most:
        sizes = " × ".join(str(len(axis.values)) for axis in sorted(axes, key=lambda axis: axis.place))
        yield FieldError(f"{KEY}.axes", f"make {sizes} = {count:,} images", f"at most {most:,} images")


def _contradictions(wanted: Mapping[int, Named], sweep: SweepRequest) -> Iterator[FieldError]:
    """Yield the axes that vary what another one varies."""
    taken: dict[str, str] = {}
    for place, one in wanted.items():
        path, of = one.path, sweep.axes[place].of.strip()
        keys = ["the whole prompt"] if path in WHOLE_PROMPT else [f"{path} {of}" if path == "lora" else path]
        for key in [*keys, *_SAME.get(path, ())]:
            if key in taken and path not in {"prompt_replace", "styles"}:
                message = f"varies what another axis varies too ({taken[key]})"
                yield FieldError(f"{KEY}.axes.{place}.field", message, "each parameter on one axis")
                break
            taken[key] = path
    if sweep.seeds == "each" and any(one.path in {"seed", "noise.variation_seed"} for one in wanted.values()):
        yield FieldError(f"{KEY}.seeds", "is each, and an axis varies the seed itself", "same")


def _values(meant: Named, axis: AxisRequest, ground: Ground, before: list[Value]) -> list[Value]:
    """Return the values of an axis; `before` are those of axes of whole prompts. Raises BadValues, Unavailable."""
    if meant.parameter is not None:
        found = Reader(meant.path, meant.parameter, ground.params, ground.limits).all(axis.values)
        return [_drawn(value) for value in found] if meant.parameter.takes.kind == "seed" else found
    prompts = [*ground.prompts, *(str(value.changes.get("prompt", "")) for value in before)]
    limits, values = ground.limits, axis.values
    ways: dict[str, Callable[[], list[Value]]] = {
        "prompt_replace": lambda: axes_of_prompts.replaced(values, prompts, limits),
        "prompt_order": lambda: axes_of_prompts.ordered(values, prompts, limits),
        "prompt_matrix": lambda: axes_of_prompts.matrix(_without_values(axis, ground.params.prompt)),
        "prompts": lambda: axes_of_prompts.Lines(ground.params, limits).all(values),
        "dynamic_prompts": lambda: _dynamic(axis, ground),
        "styles": lambda: _styles(values, ground),
        "sampler_schedule": lambda: _samplers(values, ground),
        "size": lambda: _sizes(values, ground),
        "lora": lambda: adapters.weights(axis.of, values, limits),
        "lora_name": lambda: adapters.names(axis.of, values, limits),
    }
    if ways.keys() != SPECIAL.keys():
        raise TypeError("an axis has no reader")
    return ways[meant.path]()


def _without_values(axis: AxisRequest, prompt: str) -> str:
    """Return the prompt of an axis that takes its values from it. Raises BadValues."""
    if axis.values:
        raise BadValues("takes its values from the prompt", f"no values beside {axis.field}")
    return prompt


def _drawn(value: Value) -> Value:
    """Return the value of a seed, with a drawn one in place of a random one."""
    (path, seed), *_ = value.changes.items()
    if seed != RANDOM_SEED:
        return value
    drawn = _RANDOM.randrange(RANDOM_SEEDS)
    return replace(value, title=str(drawn), changes={path: drawn})


def _dynamic(axis: AxisRequest, ground: Ground) -> list[Value]:
    template = dynamic.read(_without_values(axis, ground.params.prompt), ground.wildcards)
    if not template.choices:
        raise BadValues("needs choices, and the prompt has none", dynamic.FORMS)
    is_random = axis.of.casefold() == "random"
    if not is_random and axis.of.casefold() not in {"", "all"}:
        raise BadValues(f"has {axis.of[:LONGEST]!r} in `of`", "all, or random with a count")
    if is_random and axis.count is None:
        raise BadValues("does not say how many texts are drawn", 'a count, such as "of": "random", "count": 8')
    if is_random and axis.count is not None:
        found = dynamic.several(template, axis.count, _RANDOM)
    elif template.count > (most := min(MOST_CELLS, ground.limits.max_count)):
        many = f"{template.count:,}" if template.count < dynamic.COUNTED else "more than a million million"
        raise BadValues(f"makes {many} prompts", f'at most {most}; "of": "random" with a count draws some of them')
    else:
        found = [*template.expanded()]
    return [Value(titled(", ".join(one.chosen)) or "empty", {"prompt": one.text}) for one in found]


def _styles(values: object, ground: Ground) -> list[Value]:
    found = []
    for place, one in enumerate(given_items(values, ground.limits)):
        name = text_of(one)
        if name.casefold() == _WITHOUT:
            found.append(Value(_WITHOUT))
            continue
        if name not in ground.styles:
            known = nearest(name, ground.styles) or [*ground.styles][:_SHOWN]
            message = f"There is no style {name[:LONGEST]!r}"
            raise BadValues(message, choices([*known, _WITHOUT]), place)
        found.append(Value(titled(name), styles=(name,)))
    return found


def _samplers(values: object, ground: Ground) -> list[Value]:
    """Return samplers with schedules: `DPM++ 2M / Karras`, `DPM++ 2M Karras`. Unknown names are left to admission."""
    found = []
    for one in given_items(values, ground.limits):
        sampler, slash, schedule = (part.strip() for part in text_of(one).partition("/"))
        both = None if slash else sampler_named(sampler)
        names = (both.sampler, both.schedule or AUTOMATIC) if both else (sampler, schedule or AUTOMATIC)
        label = SCHEDULES.get(names[1].casefold(), names[1])
        found.append(Value(titled(f"{names[0]} / {label}"), {"sampler": names[0], "schedule": names[1]}))
    return found


def _sizes(values: object, ground: Ground) -> list[Value]:
    found = []
    for place, one in enumerate(given_items(values, ground.limits)):
        try:
            found.append(axes_of_prompts.size(text_of(one), ground.params, ground.limits))
        except BadValues as bad:
            raise BadValues(str(bad), bad.accepted, place) from None
    return found
