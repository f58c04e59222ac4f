"""The table of parameters: every field of a model by its dotted name, with its facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from shared.params.facts import GROUPS, Fact, Group, Takes
from shared.params.fields import metadata
from shared.params.render import RenderParams


@dataclass(frozen=True, eq=False)
class Parameter:
    """One field; the fields of a group stand beside it under its name and a dot, also those of a list of groups."""

    name: str
    fact: Fact
    takes: Takes
    group: Group | None  # None: it is neither on the form nor on a job's page
    default: object  # None for a required field
    is_required: bool  # its group cannot do without it
    is_optional: bool  # null leaves it out
    is_group: bool
    is_list: bool
    is_in_list: bool  # of one item of a list of groups
    schema: Mapping[str, Any]  # of a value that is not null

    @property
    def kind(self) -> str:
        """JSON's word for its values: string, integer, number, boolean, array or object."""
        return str(self.schema["type"])

    @property
    def label(self) -> str:
        """What people call it: `CFG scale`."""
        return self.fact.label or self.name.rpartition(".")[2].replace("_", " ").capitalize()

    @property
    def description(self) -> str:
        """One sentence for programs and documentation."""
        return self.fact.description

    @property
    def hint(self) -> str:
        """One sentence for the form."""
        return self.fact.hint(self.default)


@cache
def parameters(model: type[BaseModel] = RenderParams) -> Mapping[str, Parameter]:
    """Return every field by its dotted name, in the order of the model."""
    return {parameter.name: parameter for parameter in _walk(model, "", None, is_in_list=False)}


def groups(table: Mapping[str, Parameter]) -> list[Group]:
    """Return the groups of the parameters, in the order in which people see them."""
    found = list(dict.fromkeys(one.group for one in table.values() if one.group is not None))
    return sorted(found, key=lambda group: GROUPS.index(group) if group in GROUPS else len(GROUPS))


def of_group(group: Group, table: Mapping[str, Parameter]) -> list[Parameter]:
    """Return the parameters of a group that hold values, in the order in which people see them."""
    order = {name: at for at, name in enumerate(group.order)}
    found = [one for one in table.values() if one.group == group and not one.is_group and not one.is_in_list]
    return sorted(found, key=lambda parameter: order.get(parameter.name, len(order)))


def lists_of(group: Group, table: Mapping[str, Parameter]) -> list[Parameter]:
    """Return the lists of groups of fields in a group."""
    return [one for one in table.values() if one.group == group and one.is_group and one.is_list and not one.is_in_list]


def optional_groups(table: Mapping[str, Parameter]) -> dict[str, list[str]]:
    """Return the optional groups by dotted name, each with its required fields; one without them needs a switch."""
    names = [one.name for one in table.values() if one.is_group and one.is_optional and not one.is_in_list]
    return {name: [one for one in children(name, table) if table[one].is_required] for name in names}


def children(group: str, table: Mapping[str, Parameter]) -> list[str]:
    """Return the dotted names of the fields of a group, without those of groups within."""
    return [name for name in table if name.rpartition(".")[0] == group]


def siblings(name: str, table: Mapping[str, Parameter]) -> list[str]:
    """Return the dotted names of the fields that stand in the same group as `name` does, or would."""
    return children(name.rpartition(".")[0], table)


def _walk(model: type[BaseModel], prefix: str, around: Group | None, *, is_in_list: bool) -> Iterator[Parameter]:
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        described = properties[name]
        kinds = [kind for kind in described.get("anyOf", [described]) if kind.get("type") != "null"]
        inner, is_list = _inner(field.annotation)
        fact = metadata(field, Fact) or Fact("")
        group = fact.group or around
        yield Parameter(
            name=prefix + name,
            fact=fact,
            takes=metadata(field, Takes) or Takes(),
            group=group,
            default=None if field.is_required() else field.default,
            is_required=field.is_required(),
            is_optional="anyOf" in described,
            is_group=inner is not None,
            is_list=is_list,
            is_in_list=is_in_list,
            schema={"type": "object"} | kinds[0] if inner and not is_list else kinds[0],
        )
        if inner is not None:
            yield from _walk(inner, f"{prefix}{name}.", group, is_in_list=is_in_list or is_list)


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, bool]:  # noqa: ANN401 - a type
    """Return the group that a type holds, if any, and whether it holds a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    is_list = get_origin(annotation) in (tuple, list)
    found = [_inner(one) for one in get_args(annotation) if one not in (NoneType, ...)]
    groups = [group for group, _ in found if group is not None]
    return groups[0] if groups else None, is_list or any(inner for _, inner in found)
