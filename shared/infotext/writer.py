"""Writes the `parameters` text of a picture: the form in which the Stable Diffusion ecosystem says what made it."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from shared.infotext import networks, units
from shared.infotext.grammar import Parts, joined, taken_apart
from shared.infotext.keys import NEGATIVE_PROMPT, PROMPT, keys
from shared.infotext.networks import Hashes
from shared.params.codecs import RESTORER_FAMILY, SIZE, number, split_title
from shared.params.faces import CODEFORMER
from shared.params.render import RenderParams
from shared.params.samplers import AUTOMATIC, SAMPLERS
from shared.params.upscale import Upscale

NONE: Final[Hashes] = MappingProxyType({})
_PLAIN: Final = "uniform"  # the model's own schedule: readers know it as Automatic


def text(params: RenderParams, *, version: str, hashes: Hashes = NONE) -> str:
    """Return the text for one image's parameters, resolved: reading it gives them back.

    Instead of `automatic` the text names the schedule that was used. `hashes` are those of the files that tags name.
    """
    written = values(params)
    parts = Parts(params.prompt, params.negative_prompt, written)
    said = networks.written(hashes) | _misread(parts)
    return joined(parts._replace(values=written | said | {"Version": f"stepfarm {version}"}))


def values(params: RenderParams) -> dict[str, str]:
    """Return what the text says beside the prompts, by name: `Steps`, `Sampler`, `Model`."""
    shown = _with_schedules(params)
    written = {key.name: value for key in keys(type(shown)) if (value := key.written(shown)) is not None}
    return written | units.written(params)


def upscale_text(options: Upscale, size: tuple[int, int]) -> str:
    """Return the text for a picture that was enlarged to `size`, as other programs write it."""
    if options.width or options.height:
        values = {"Postprocess upscale to": SIZE.write(*size)}
    else:
        values = {"Postprocess upscale by": number(options.scale)}
    values["Postprocess upscaler"] = split_title(options.upscaler)[0]
    if options.second and options.second_share:
        values["Postprocess upscaler 2"] = split_title(options.second)[0]
        values["Postprocess upscaler 2 visibility"] = number(options.second_share)
    if options.faces:
        restorer = RESTORER_FAMILY.write(options.faces.restorer)
        values[f"Postprocess {restorer} visibility"] = number(options.faces.strength)
        if restorer == CODEFORMER:
            values["Postprocess CodeFormer weight"] = number(options.faces.fidelity)
    return joined(Parts("", "", values)).strip()


def _misread(parts: Parts) -> dict[str, str]:
    """Return the prompts that would not be read from the text as they are, to be said again as values."""
    read = taken_apart(joined(parts))
    said = {PROMPT: parts.prompt, NEGATIVE_PROMPT: parts.negative_prompt}
    lost = {PROMPT: read.prompt != parts.prompt, NEGATIVE_PROMPT: read.negative_prompt != parts.negative_prompt}
    return {name: prompt for name, prompt in said.items() if lost[name]}


def _with_schedules(params: RenderParams) -> RenderParams:
    """Return the parameters with the schedules that `automatic` stood for."""
    first = _used(params.sampler, params.schedule)
    changes: dict[str, object] = {"schedule": first}
    if hires := params.hires:
        second = _used(hires.sampler or params.sampler, hires.schedule or params.schedule)
        is_said = hires.schedule or second != first  # `automatic` may be another one for the second sampler
        changes["hires"] = hires.model_copy(update={"schedule": second if is_said else ""})
    return params.model_copy(update=changes)


def _used(sampler: str, schedule: str) -> str:
    """Return the schedule that was used; `automatic` if the sampler takes it without being asked."""
    facts = SAMPLERS[sampler]
    used = facts.automatic if schedule == AUTOMATIC else schedule
    return schedule if used == _PLAIN or used not in facts.schedules else used
