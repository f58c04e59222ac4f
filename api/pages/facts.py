"""A job's parameters as people read them: what every job has, then what was set beside, group by group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from api.pages.fields import FIELDS, inside, plain
from api.pages.layout import CHOICE_LABELS, GROUPS, LABELS, RESOLVED, Group
from shared.measures import hires_size
from shared.params import RenderParams
from shared.samplers import SCHEDULES

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

_APART: Final = frozenset({"img2img.picture", "img2img.mask.picture"})  # shown as pictures


@dataclass(frozen=True)
class Facts:
    """Rows under one title; the everyday ones have none."""

    title: str
    rows: list[tuple[str, str]]


def facts(params: RenderParams) -> list[Facts]:
    """Return the parameters as people read them, the prompts apart."""
    stored = params.model_dump()
    told = [Facts(group.title, _rows(group, stored, params)) for group in GROUPS]
    return [Facts("", _everyday(params)), *(one for one in told if one.rows)]


def sides(params: RenderParams) -> tuple[int, int]:
    """Return width and height of the pictures that come out."""
    if params.hires is None:
        return params.width, params.height
    return hires_size(params.width, params.height, params.hires).final


def _everyday(params: RenderParams) -> list[tuple[str, str]]:
    size = f"{params.width} × {params.height}"
    if params.hires:
        size += " → {} × {}".format(*sides(params))
    return [
        ("Checkpoint", params.checkpoint),
        ("Size", size),
        ("Steps", str(params.steps)),
        ("Sampler", params.sampler),
        ("Schedule", SCHEDULES.get(params.schedule, params.schedule)),
        ("CFG scale", plain(params.cfg_scale)),
        ("Seed", str(params.seed)),
        ("Images", str(params.count)),
    ]


def _rows(group: Group, stored: Mapping[str, Any], params: RenderParams) -> list[tuple[str, str]]:
    names = [name for name in group.fields if name not in _APART and _is_told(name, stored)]
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
