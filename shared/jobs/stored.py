"""Parameters as the row of a job holds them, whichever version of the farm wrote it.

Only values that differ from the defaults are stored, so an older version reads the rows of a newer one, except for
parameters that the job uses and the older version does not know. It reports those by name, never as an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from shared.params import paths
from shared.params.codecs import split_title
from shared.params.partial import readable
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS, SCHEDULES
from shared.params.table import parameters
from shared.params.upscalers import UPSCALERS
from shared.prompts.adapters import BadTag, used
from shared.prompts.extra_networks import Network, networks

_MOST_NAMES: Final = 5  # names in a sentence
_LONGEST: Final = 60  # characters of a value in a sentence


class Understood(NamedTuple):
    """A job's parameters as this version knows them; `unknown` holds the others by dotted name, as stored.

    `params` has defaults in place of unknown values, so that every reader of parameters can read them, but a job with
    unknown values must not be rendered.
    """

    params: RenderParams
    unknown: Mapping[str, Any]


def written(params: RenderParams) -> dict[str, Any]:
    """Return what a row holds of `params`: what differs from the defaults."""
    return params.model_dump(mode="json", exclude_defaults=True)


def understood(stored: object) -> Understood:
    """Return what this version understands of what a row holds."""
    if not isinstance(stored, Mapping):
        return Understood(RenderParams(), {"params": stored})
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
    prompts = params.of_kind("prompt")
    return {name: f"<{tag.kind}:{tag.name}>" for name, prompt in prompts.items() for tag in _unknown_tags(name, prompt)}


def _unknown_tags(name: str, prompt: str) -> tuple[Network, ...]:
    tags = networks(prompt)
    try:
        known = () if name.endswith("negative_prompt") else used(prompt)
    except BadTag:
        return tags
    return () if known else tags


def _without(params: RenderParams, unknown: Mapping[str, str]) -> RenderParams:
    """Return the parameters with defaults in the place of names that are not known."""
    return paths.replaced(params, {name: parameters()[name].default for name in unknown})
