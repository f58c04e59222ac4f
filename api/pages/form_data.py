"""Parameters as a person types them into the form, and back: one text a field, as browsers send them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from werkzeug.datastructures import MultiDict

from api.pages.fields import EVERY, FIELDS, LISTS, Field, items
from api.pages.fieldsets import SWITCHES
from shared.params import paths
from shared.params.table import optional_groups, parameters

Given = MultiDict[str, str]
MOST_ITEMS: Final = 16
"""Items of a list of groups that the form takes."""
PICTURE: Final = "img2img.picture"
MASK: Final = "img2img.mask.picture"
_OPTIONAL: Final = optional_groups(parameters())


def typed(params: Mapping[str, Any]) -> Given:
    """Return parameters, nested as JSON has them, as a person would have typed them; what is missing is default."""
    given = Given()
    of_items = [field for name in LISTS for field in items(name, len(paths.get(params, name) or ())).values()]
    for field in (*FIELDS.values(), *of_items):
        value = paths.get(params, field.name)
        if field.kind == "list":
            given.setlist(field.name, list(value or ()))
        else:
            is_default = value is None or value == field.parameter.default
            given[field.name] = field.default if is_default else field.typed(value)
    for switch in SWITCHES:
        given[switch] = "on" if paths.get(params, switch) is not None else ""
    return given


def read(given: Given) -> dict[str, object]:
    """Return what was typed as the API takes it, nested: what was left empty is left out.

    Groups that were not asked for are left out too: the second pass unless its box is ticked, the refiner without a
    checkpoint, img2img without a picture. What such a group holds has no meaning without it.
    """
    params: dict[str, Any] = {}
    for switch in SWITCHES:
        if all(_is_used(group, given) for group in _optional_around(f"{switch}.")):
            paths.put(params, switch, {})
    for field in every(given).values():
        if not _is_wanted(field, given):
            continue
        texts = [text for text in given.getlist(field.name) if text.strip()]
        if texts:
            paths.put(params, _numbered(field, given), texts if field.kind == "list" else field.read(texts[0]))
    return params


def every(given: Given) -> dict[str, Field]:
    """Return the fields of the form by name: of each parameter, and of lists one item more than is filled in."""
    of_items = [items(name, min(_filled(name, given)[-1] + 2, _most_items(name))) for name in LISTS]
    return EVERY | {name: field for fields in of_items for name, field in fields.items()}


def _filled(name: str, given: Given) -> list[int]:
    """Return the numbers of the items of a list that something was typed into; -1 stands before them."""
    fields = items(name, _most_items(name)).values()
    typed = {field.item for field in fields if given.get(field.name, "").strip() not in ("", field.default)}
    return [-1, *sorted(int(item.rpartition(".")[2]) for item in typed)]


def _most_items(name: str) -> int:
    """Return how many items of a list of groups the form takes."""
    return min(MOST_ITEMS, int(parameters()[name].schema.get("maxItems", MOST_ITEMS)))


def _numbered(field: Field, given: Given) -> str:
    """Return the path of a field without the numbers of items that nothing was typed into."""
    if not field.item:
        return field.name
    name, _, number = field.item.rpartition(".")
    place = _filled(name, given).index(int(number)) - 1
    return f"{name}.{place}{field.name.removeprefix(field.item)}"


def _is_wanted(field: Field, given: Given) -> bool:
    name = field.name
    if field.item:
        return int(field.item.rpartition(".")[2]) in _filled(field.item.rpartition(".")[0], given)
    return all(_is_used(group, given) for group in _optional_around(name))


def _is_used(group: str, given: Given) -> bool:
    """True if an optional group's box is ticked, a field that it requires is filled in, or one within it is used."""
    if group in SWITCHES:
        return given.get(group) == "on"
    is_filled = any(given.get(name, "").strip() for name in _OPTIONAL[group])
    return is_filled or any(_is_used(inner, given) for inner in _OPTIONAL if inner.startswith(f"{group}."))


def _optional_around(name: str) -> list[str]:
    return [group for group in _OPTIONAL if name.startswith(f"{group}.")]
