"""Writes the tables of docs/parameters.md from the facts of the parameters: `make docs`.

The text above the mark is written by hand, the text below it is generated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from shared.admission.accepted import accepted
from shared.params.scheduling import Scheduling
from shared.params.table import Parameter, parameters
from shared.settings import Limits

PAGE: Final = Path(__file__).parents[1] / "docs" / "parameters.md"
MARK: Final = "<!-- made by `make docs` from here on -->"
_HEAD: Final = "| parameter | default | accepts | | option | in files |\n| --- | --- | --- | --- | --- | --- |"
_PAGES: Final = {"sampler": "[a sampler](samplers.md)", "schedule": "[a schedule](samplers.md)"}
_SCHEDULING: Final = "Fields beside the parameters, which change no picture. [The API](api.md) says more."


def page(text: str, table: Mapping[str, Parameter], scheduling: Mapping[str, Parameter]) -> str:
    """Return the page with its tables made again; the prose above the mark stays."""
    prose = text.partition(MARK)[0].rstrip()
    groups = [parameter for parameter in table.values() if parameter.is_group]
    sections = [
        _section("Everything", "", [one for name, one in table.items() if "." not in name]),
        *(_section(f"`{one.name}`", one.description, _members(one, table)) for one in groups),
        _section("Scheduling", _SCHEDULING, scheduling.values()),
    ]
    return "\n\n".join([prose, MARK, *sections]) + "\n"


def _members(group: Parameter, table: Mapping[str, Parameter]) -> list[Parameter]:
    return [one for name, one in table.items() if name.rpartition(".")[0] == group.name]


def _section(title: str, text: str, members: Iterable[Parameter]) -> str:
    table = "\n".join([_HEAD, *map(_row, members)])
    return "\n\n".join(part for part in (f"## {title}", text, table) if part)


def _row(parameter: Parameter) -> str:
    fact = parameter.fact
    accepts = _PAGES.get(parameter.takes.kind or "", accepted(parameter.name, Limits()))
    cells = [
        f"`{parameter.name}`",
        _default(parameter),
        "see below" if parameter.is_group else accepts,
        parameter.description,
        f"`{fact.option.name}`" if fact.option else "",
        ", ".join(f"`{key.name}`" for key in fact.keys),
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(parameter: Parameter) -> str:
    if parameter.is_required:
        return "required"
    if parameter.is_group and not parameter.is_optional and not parameter.is_list:
        return ""
    return f"`{json.dumps(parameter.default)}`"


def main() -> int:
    """Write the page; with `--check` tell whether it is as it would be written."""
    before = PAGE.read_text()
    after = page(before, parameters(), parameters(Scheduling))
    if "--check" in sys.argv:
        return int(before != after)
    PAGE.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
