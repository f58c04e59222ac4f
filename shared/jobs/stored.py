"""Parameters as the row of a job holds them, whichever version of the farm wrote it.

Only values that differ from the defaults are stored, so an older version reads the rows of a newer one, except for
parameters that the job uses and the older version does not know. It reports those by name, never as an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from shared.params import paths
from shared.params.codecs import split_title
from shared.params.job_spec import JobSpec, Sweep, put_changes
from shared.params.partial import readable
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS, SCHEDULES
from shared.params.table import parameters
from shared.params.upscalers import UPSCALERS
from shared.prompts.adapters import BadTag, used
from shared.prompts.extra_networks import Network, networks

SWEEP: Final = "sweep"
"""The key of a job's axes beside its parameters: to versions that know no axes it is a parameter of a newer one."""
_MOST_NAMES: Final = 5  # names in a sentence
_LONGEST: Final = 60  # characters of a value in a sentence


class Understood(NamedTuple):
    """A job's parameters as this version knows them; `unknown` holds the others by dotted name, as stored.

    `params` has defaults in place of unknown values, so that every reader of parameters can read them, but a job with
    unknown values must not be rendered.
    """

    params: RenderParams
    unknown: Mapping[str, Any]


def written(params: RenderParams, sweep: Sweep | None = None) -> dict[str, Any]:
    """Return what a row holds of `params`: what differs from the defaults, and beside it the axes of a sweep."""
    row = params.model_dump(mode="json", exclude_defaults=True)
    return row | ({SWEEP: sweep.model_dump(mode="json", exclude_defaults=True)} if sweep else {})


def spec(stored: object, changes: Mapping[int, object]) -> tuple[JobSpec, Mapping[str, Any]]:
    """Return what this version understands of a job and of what these of its images change, by index; None: nothing.

    Beside it, by dotted name, what it does not understand of the job or of any of these images.
    """
    params, unknown = understood(stored)
    sweep = _sweep(stored)
    known, read = {}, {}
    for index, change in changes.items():
        if _is_plain(stored, change):
            continue
        read[index], strange = image(stored, index, change)
        known[index] = change if isinstance(change, Mapping) else {}
        unknown = {**strange, **unknown}
    return JobSpec(params, sweep.axes if sweep else (), known, read, sweep), unknown


def image(stored: object, index: int, changes: object) -> Understood:
    """Return what this version understands of one image alone: of its job's row, and of what its own row changes."""
    if isinstance(stored, Mapping) and not _is_plain(stored, changes):
        with suppress(paths.PathError):
            if isinstance(changes, Mapping | None):
                return understood(put_changes(stored, changes or {}))
        params, unknown = understood(stored)
        return Understood(params.image(index), {**unknown, "changes": changes})
    params, unknown = understood(stored)
    return Understood(params.image(index), unknown)


def _is_plain(stored: object, changes: object) -> bool:
    """Return whether an image differs from the others of its job by its seed alone."""
    return changes is None and not (isinstance(stored, Mapping) and SWEEP in stored)


def understood(stored: object) -> Understood:
    """Return what this version understands of what a row holds."""
    if not isinstance(stored, Mapping):
        return Understood(RenderParams(), {"params": stored})
    if SWEEP in stored:
        params, unknown = understood({name: value for name, value in stored.items() if name != SWEEP})
        return Understood(params, unknown if _sweep(stored) else {**unknown, SWEEP: stored[SWEEP]})
    try:
        params, unknown = RenderParams.model_validate(stored), {}
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        bad = [problem["loc"][:-1] if problem["type"] == "missing" else problem["loc"] for problem in problems]
        params, unknown = readable(stored, bad), {paths.dotted(path): paths.get(stored, path) for path in bad}
        unknown |= _lost_groups(stored, params)
    names = _unknown_names(params)
    return Understood(_without(params, names), unknown | names | _tags(params))


def names(unknown: Mapping[str, Any]) -> str:
    """`hires.foo, mood and 3 more`: what is not understood, for a sentence."""
    shown = [*unknown][:_MOST_NAMES]
    more = f" and {len(unknown) - _MOST_NAMES} more" if len(unknown) > _MOST_NAMES else ""
    return ", ".join(name[:_LONGEST] for name in shown) + more


def value_words(value: object) -> str:
    """Return a value that is not understood, for people: as JSON has it, cut to what a line can hold."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _sweep(stored: object) -> Sweep | None:
    """Return the axes that a row holds; None: it has none, or they are those of a newer version."""
    if not isinstance(stored, Mapping) or SWEEP not in stored:
        return None
    try:
        return Sweep.model_validate(stored[SWEEP])
    except ValidationError:
        return None


def _lost_groups(stored: Mapping[str, Any], params: RenderParams) -> dict[str, Any]:
    """Return the groups that could not stand without what is not understood in them."""
    known = [name for name in stored if name in RenderParams.model_fields]
    return {name: stored[name] for name in known if stored[name] is not None and getattr(params, name) is None}


def _unknown_names(params: RenderParams) -> dict[str, str]:
    """Return the samplers, schedules and upscalers that this version does not have, by dotted name."""
    found = _of_pass("", params.sampler, params.schedule)
    if (hires := params.hires) is None:
        return found
    if hires.sampler or hires.schedule:
        second = _of_pass("hires.", hires.sampler or params.sampler, hires.schedule or params.schedule)
        own = {"hires.sampler": hires.sampler, "hires.schedule": hires.schedule}
        found |= {name: value for name, value in second.items() if own[name]}
        if second and not found:  # the sampler of the second pass with the schedule of the first
            found["hires.sampler"] = hires.sampler
    is_known = hires.upscaler in UPSCALERS or split_title(hires.upscaler)[1]  # of a model file
    return found if is_known else found | {"hires.upscaler": hires.upscaler}


def _of_pass(group: str, sampler: str, schedule: str) -> dict[str, str]:
    """Return what is unknown among the names of one pass: a sampler, a schedule, or that the two go together."""
    if sampler not in SAMPLERS:
        return {f"{group}sampler": sampler} | ({} if schedule in SCHEDULES else {f"{group}schedule": schedule})
    return {} if schedule in SAMPLERS[sampler].schedules else {f"{group}schedule": schedule}


def _tags(params: RenderParams) -> dict[str, str]:
    """Return the tags that this version does not understand, or not in a negative prompt, by the prompt's name."""
    return {
        name: f"<{tag.kind}:{tag.name}>"
        for name, prompt in params.of_kind("prompt").items()
        for tag in _unknown_tags(prompt, is_negative=name.endswith("negative_prompt"))
    }


@lru_cache(4096)  # the images of a sweep have the same few prompts
def _unknown_tags(prompt: str, *, is_negative: bool) -> tuple[Network, ...]:
    tags = networks(prompt)
    try:
        known = () if is_negative else used(prompt)
    except BadTag:
        return tags
    return () if known else tags


def _without(params: RenderParams, unknown: Mapping[str, str]) -> RenderParams:
    """Return the parameters with defaults in the place of names that are not known."""
    return paths.replaced(params, {name: parameters()[name].default for name in unknown}) if unknown else params
