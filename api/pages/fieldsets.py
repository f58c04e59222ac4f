"""How the form is laid out: its groups, the fields of each, and the words on them."""

from __future__ import annotations

import re
from typing import Final

from api.pages.fields import EVERY, Field, printed, titled
from shared.params.facts import EVERYDAY, HIRES, IMG2IMG, Group
from shared.params.paths import field_name
from shared.params.scheduling import Scheduling
from shared.params.table import groups, of_group, optional_groups, parameters

SWITCHES: Final = tuple(name for name, required in optional_groups(parameters()).items() if not required)
"""The boxes that ask for optional groups whose fields alone do not tell, because each has a default."""

FOLDED: Final = tuple(group for group in groups(parameters()) if group is not EVERYDAY)
"""The folding groups of parameters."""
SCHEDULING: Final = tuple(groups(parameters(Scheduling)))
"""The folding groups of what schedules a job."""


def members(group: Group) -> list[str]:
    """Return the names of a group's fields, in the order of the form."""
    tables = (parameters(), parameters(Scheduling))
    return [parameter.name for table in tables for parameter in of_group(group, table)]


def switches(group: Group) -> list[str]:
    """Return the names of the boxes of a section that ask for an optional group."""
    return [name for name in SWITCHES if parameters()[name].group == group]


def label(name: str) -> str:
    """Return what a field is called; a name that is on no form is its own label."""
    if name in EVERY:
        return EVERY[name].label
    parameter, number = parameters().get(field_name(name)), re.search(r"\.(\d+)\.", name)
    if parameter is None:
        return name
    return Field(parameter, name[: number.end() - 1]).label if number else printed(parameter.label)


def full_label(name: str) -> str:
    """Return a field's label with its group's title, unless it says that itself: `Hires: Scale`, `Hires steps`."""
    group, own = EVERY[name].parameter.group if name in EVERY else None, label(name)
    if group is None or group is EVERYDAY or own.startswith(printed(group.title)):
        return own
    return titled(printed(group.title), own)


def place(name: str) -> int:
    """Return where a field stands on the form, from its top; what has no place there comes last."""
    return _PLACES.get(name, len(_PLACES))


def _drawn(group: Group) -> list[str]:
    """Return a group's fields as they are drawn: flags come last, except in groups with a template of their own."""
    names, boxes = members(group), switches(group)
    if group is HIRES:
        return [*boxes, *names]
    if group is not IMG2IMG:
        names = sorted(names, key=lambda name: EVERY[name].kind == "flag")
    return [*names, *boxes]


_PLACES: Final = {
    name: at for at, name in enumerate(name for group in (EVERYDAY, *FOLDED, *SCHEDULING) for name in _drawn(group))
}
