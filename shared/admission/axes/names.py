"""Which parameters an axis can vary, and the axes that stand for no single one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple

from shared.admission.axes.notation import BadValues
from shared.params import paths
from shared.params.job_spec import SPECIAL
from shared.params.render import RenderParams
from shared.params.table import Parameter, parameters
from shared.suggest import nearest
from shared.wording import LONGEST, choices

WHOLE_PROMPT: Final = frozenset({"prompt", "prompts", "dynamic_prompts", "prompt_matrix"})
"""Axes whose values are whole prompts."""

_OF_THE_JOB: Final = frozenset({"count", "format", "file_quality", "film"})  # one for all its pictures
_KINDS: Final = frozenset({"integer", "number", "boolean", "string"})
_ALIASES: Final = {
    "cfg": "cfg_scale", "sampler_name": "sampler", "scheduler": "schedule", "denoising": "img2img.denoising",
    "denoising_strength": "img2img.denoising", "clip-skip": "clip_skip", "model": "checkpoint",
    "variation_strength": "noise.variation_strength", "variation_seed": "noise.variation_seed", "style": "styles",
}  # fmt: skip
_DEAREST: Final = (
    "checkpoint", "refiner.checkpoint", "hires.checkpoint", "vae", "lora", "lora_name", "size", "width", "height",
)  # fmt: skip
"""The axes whose every step costs most, the dearest first."""


class Named(NamedTuple):
    """What an axis varies: a parameter at a dotted path, or what SPECIAL has under the path; then no parameter."""

    path: str
    parameter: Parameter | None = None

    @property
    def rank(self) -> int:
        """Its place in the order of axes: of those that cost more to change the lower."""
        return _DEAREST.index(self.path) if self.path in _DEAREST else len(_DEAREST)


def named(field: str, base: RenderParams) -> Named:
    """Return what the `field` of an axis means for a job with these parameters. Raises BadValues.

    A parameter is named by its dotted name, its label or its option of `farm render`.
    """
    path = _spelled(field.strip())
    if path in SPECIAL:
        return Named(path)
    parameter = parameters().get(paths.field_name(path))
    if parameter is None:
        known = nearest(path[:LONGEST], [*varied(), *SPECIAL])
        raise BadValues(
            f"names {field[:LONGEST]!r}, which is not a parameter", choices(known or ["cfg_scale", *SPECIAL])
        )
    if parameter.name not in varied():
        why = "is the same for all images of a job" if parameter.name in _OF_THE_JOB else "has no values to go through"
        raise BadValues(f"names {path[:LONGEST]}, which {why}", "a parameter with values, such as cfg_scale or sampler")
    if path != parameter.name or not parameter.is_in_list:
        _require_group(path, base)
        return Named(path, parameter)
    group, _, name = path.rpartition(".")
    raise BadValues(f"does not say which {group} is meant", f"{group}.0.{name} for the first one")


@cache
def varied() -> Mapping[str, Parameter]:
    """Return the parameters that an axis can vary by their dotted names; those of lists without a number."""
    return {name: one for name, one in parameters().items() if _has_values(one)}


def _has_values(one: Parameter) -> bool:
    is_one_value = not one.is_group and not one.is_list and one.kind in _KINDS
    is_own = one.name not in _OF_THE_JOB and not one.name.startswith("upscale.")
    return is_one_value and is_own and one.takes.kind != "picture"


def _spelled(field: str) -> str:
    """Return the dotted name that a text means; the text itself if it is none that is known."""
    if field in SPECIAL or paths.field_name(field) in parameters():
        return field
    plain = field.lstrip("-").casefold()
    return _ALIASES.get(plain) or _by_word().get(plain) or field


@cache
def _by_word() -> Mapping[str, str]:
    """Return the names of parameters by their labels and options, casefolded."""
    found: dict[str, str] = {}
    for name, one in varied().items():
        if one.fact.option and one.fact.option.name.startswith("--") and not one.is_in_list:
            found.setdefault(one.fact.option.name.lstrip("-"), "size" if one.fact.option.beside else name)
    for name, one in varied().items():
        if not one.is_in_list:
            found.setdefault(one.label.casefold(), name)
    return found


def _require_group(path: str, base: RenderParams) -> None:
    """Raise BadValues unless the group, or the item of a list, that holds the field is part of the job."""
    group = path.rpartition(".")[0]
    if not group or paths.get(base, group) is not None:
        return
    if group.rpartition(".")[2].isdigit():
        whole = group.rpartition(".")[0]
        raise BadValues(f"varies {path}, and the job has no {group}", f"an item of {whole} for each number from 0 on")
    raise BadValues(f"varies {path}, and the job has no {group}", f"{group} beside the sweep, which all images share")
