"""Control nets and IP-Adapters in the text of a picture, one value each, as the ControlNet extension writes both."""

from __future__ import annotations

import re
from typing import Any, Final

from shared.infotext import control_nets, ip_adapters
from shared.infotext.unit_text import LONGEST, names_model, parts
from shared.params.render import RenderParams

_NAME: Final = re.compile(r"ControlNet (\d{1,2})", re.IGNORECASE)


def written(params: RenderParams) -> dict[str, str]:
    """Return the value of each unit by its name in the text: control nets, then IP-Adapters."""
    values = [*map(control_nets.written, params.controlnet), *map(ip_adapters.written, params.ip_adapters)]
    return {f"ControlNet {at}": value for at, value in enumerate(values)}


def taken(values: dict[str, str]) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Take the units out of a text's `values`; return them by their parameter, and notes of what is not read."""
    names = {name: int(found[1]) for name in values if (found := _NAME.fullmatch(name))}
    units, notes = dict[str, list[dict[str, Any]]](), list[str]()
    for name in sorted(names, key=names.__getitem__):
        text, unit = values.pop(name), dict[str, Any]()
        said = parts(text)
        if not names_model(said):
            notes.append(f"{name}: {text[:LONGEST]}: not read, because it names no model")
            continue
        field, reader = ("ip_adapters", ip_adapters) if ip_adapters.is_one(said) else ("controlnet", control_nets)
        notes += [f"{name}: {note}" for note in reader.taken(said, unit)]
        if unit:
            units.setdefault(field, []).append(unit)
    return units, notes
