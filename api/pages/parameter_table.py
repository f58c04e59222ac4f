"""A job's parameters as people read them: what every job has, then what was set beside, group by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from api.languages import _, lazy
from api.pages.fields import FIELDS, LISTS, RESOLVED, Field, items, plain, printed
from api.pages.fieldsets import FOLDED, label, members
from shared.jobs.stored import value_words
from shared.params import paths
from shared.params.facts import EVERYDAY, Group
from shared.params.geometry import hires_size
from shared.params.render import RenderParams
from shared.params.samplers import SCHEDULES
from shared.params.table import parameters
from shared.params.upscale import Upscale

NEWER: Final = lazy("Written by a newer version of the farm")
_ELSEWHERE: Final = frozenset({"prompt", "style", "picture"})  # kinds of values that the page shows in other places


@dataclass(frozen=True)
class Rows:
    """Labels and values under one title; the everyday ones have none."""

    title: str
    rows: list[tuple[str, str]]


def parameter_table(params: RenderParams, unknown: Mapping[str, Any] = MappingProxyType({})) -> list[Rows]:
    """Return the parameters as people read them, the prompts apart; what is unknown to this version as it is stored."""
    if params.upscale:
        return [Rows("", _enlarged(params.upscale))]
    groups = [Rows(printed(group.title), [*_rows(group, params, unknown)]) for group in FOLDED]
    strange = Rows(str(NEWER), [(name, value_words(value)) for name, value in unknown.items()])
    return [Rows("", _everyday(params, unknown)), *(one for one in (*groups, strange) if one.rows)]


def followed(params: RenderParams) -> dict[str, list[str]]:
    """Return the uploads that control nets and IP-Adapters follow, by the words for each of them."""
    found: dict[str, list[str]] = {}
    for name in LISTS:
        for field in items(name, len(paths.get(params, name))).values():
            value = paths.get(params, field.name)
            if field.parameter.takes.kind == "picture" and value:
                found[field.legend] = [value] if isinstance(value, str) else [*value]
    return found


def sides(params: RenderParams) -> tuple[int, int]:
    """Return width and height of the pictures that come out; a square, if each has its own."""
    if params.upscale:
        return (params.upscale.width, params.upscale.height) if params.upscale.is_sized else (512, 512)
    if params.hires is None:
        return params.width, params.height
    return hires_size(params.width, params.height, params.hires).final


def _enlarged(options: Upscale) -> list[tuple[str, str]]:
    """Return what a job does to the pictures that it enlarges."""
    size = {_("Width"): options.width, _("Height"): options.height} if options.width or options.height else {}
    rows = [(label, _("%(n)s pixels", n=side)) for label, side in size.items() if side] or [
        (_("Scale"), _("none, the size is kept") if options.scale == 1 else _("%(n)s times", n=plain(options.scale)))
    ]
    rows.append((_("Upscaler"), options.upscaler))
    if options.second:
        rows.append((_("Second upscaler"), f"{options.second}, {options.second_share:.0%}"))
    if options.faces:
        rows.append((_("Faces restored by"), f"{options.faces.restorer}, {options.faces.strength:.0%}"))
    return rows


def _everyday(params: RenderParams, unknown: Mapping[str, Any]) -> list[tuple[str, str]]:
    size = f"{params.width} × {params.height}"
    if params.hires:
        size += " → {} × {}".format(*sides(params))
    names = [name for name in members(EVERYDAY) if FIELDS[name].parameter.takes.kind not in _ELSEWHERE]
    rows = {name: (label(name), words(FIELDS[name], getattr(params, name))) for name in names}
    rows["width"] = (_("Size"), size)
    if "height" in unknown:
        del rows["width"]
    return [row for name, row in rows.items() if name not in {"height", *unknown}]


def _rows(group: Group, params: RenderParams, unknown: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a group that are set, and those that are always listed if the group is used."""
    has_target = params.hires is not None and bool(params.hires.width or params.hires.height)
    lists = [name for name in LISTS if parameters()[name].group == group]
    of_items = [field for name in lists for field in items(name, len(paths.get(params, name))).values()]
    for field in (*(FIELDS[name] for name in members(group)), *of_items):
        name, parameter, value = field.name, field.parameter, paths.get(params, field.name)
        is_elsewhere = parameter.takes.kind == "picture" or name in unknown or (name == "hires.scale" and has_target)
        is_set = value not in (parameter.default, RESOLVED.get(name))
        if value is not None and not is_elsewhere and (is_set or parameter.fact.is_listed):
            yield field.label, words(field, value)


def words(field: Field, value: object) -> str:
    """Return a value as people read it."""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    text = field.typed(value)
    if field.parameter.takes.kind == "schedule":
        return printed(SCHEDULES.get(text, text))
    return field.labels.get(text, text)
