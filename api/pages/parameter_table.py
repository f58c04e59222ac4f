"""A job's parameters as people read them: what every job has, then what was set beside, group by group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from api.pages.fields import FIELDS, inside, plain
from api.pages.fieldsets import CHOICE_LABELS, GROUPS, LABELS, RESOLVED, Group
from shared.jobs.stored import told
from shared.params.geometry import hires_size
from shared.params.render import RenderParams
from shared.params.samplers import SCHEDULES

_ALWAYS: Final = {
    "hires.scale": "hires",
    "hires.upscaler": "hires",
    "hires.denoising": "hires",
    "refiner.switch_at": "refiner",
    "img2img.denoising": "img2img",
    "img2img.mask.area": "img2img.mask",
    "img2img.mask.content": "img2img.mask",
}
"""Fields that are told at their default too, where the part of the parameters is there that they belong to."""

NEWER: Final = "Written by a newer version of the farm"

_APART: Final = frozenset({"img2img.picture", "img2img.mask.picture"})  # shown as pictures


@dataclass(frozen=True)
class Facts:
    """Rows under one title; the everyday ones have none."""

    title: str
    rows: list[tuple[str, str]]


def facts(params: RenderParams, unknown: Mapping[str, Any] = MappingProxyType({})) -> list[Facts]:
    """Return the parameters as people read them, the prompts apart; what is unknown to this version as it is stored."""
    stored = params.model_dump()
    groups = [Facts(group.title, _rows(group, stored, params, unknown)) for group in GROUPS]
    strange = Facts(NEWER, [(name, told(value)) for name, value in unknown.items()])
    return [Facts("", _everyday(params, unknown)), *(one for one in (*groups, strange) if one.rows)]


def sides(params: RenderParams) -> tuple[int, int]:
    """Return width and height of the pictures that come out."""
    if params.hires is None:
        return params.width, params.height
    return hires_size(params.width, params.height, params.hires).final


def _everyday(params: RenderParams, unknown: Mapping[str, Any]) -> list[tuple[str, str]]:
    size = f"{params.width} × {params.height}"
    if params.hires:
        size += " → {} × {}".format(*sides(params))
    rows = {
        ("checkpoint",): ("Checkpoint", params.checkpoint),
        ("width", "height"): ("Size", size),
        ("steps",): ("Steps", str(params.steps)),
        ("sampler",): ("Sampler", params.sampler),
        ("schedule",): ("Schedule", SCHEDULES.get(params.schedule, params.schedule)),
        ("cfg_scale",): ("CFG scale", plain(params.cfg_scale)),
        ("seed",): ("Seed", str(params.seed)),
        ("count",): ("Images", str(params.count)),
    }
    return [row for names, row in rows.items() if unknown.keys().isdisjoint(names)]


def _rows(
    group: Group, stored: Mapping[str, Any], params: RenderParams, unknown: Mapping[str, Any]
) -> list[tuple[str, str]]:
    left_out = _APART | unknown.keys()
    names = [name for name in group.fields if name not in left_out and _is_told(name, stored)]
    if params.hires and (params.hires.width or params.hires.height):
        names = [name for name in names if name != "hires.scale"]
    return [(LABELS[name], _words(name, inside(stored, name))) for name in names]


def _is_told(name: str, stored: Mapping[str, Any]) -> bool:
    value = inside(stored, name)
    if name in _ALWAYS:
        return inside(stored, _ALWAYS[name]) is not None
    return value not in (None, FIELDS[name].default, RESOLVED.get(name))


def _words(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    words = FIELDS[name].typed(value)
    labels = SCHEDULES if name.endswith("schedule") else CHOICE_LABELS.get(name, {})
    return labels.get(words, words)
