"""Help under headings: options of a command that has many stand in sections."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from typer.core import TyperCommand

_OTHERS: Final = {"argument": "Arguments", "option": "Options"}


class Sectioned(TyperCommand):
    """A command whose help shows each option under its `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer's own copy of click
        """Write arguments and options, section by section, in the order in which they first come."""
        sections: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections[getattr(parameter, "rich_help_panel", None) or _OTHERS[parameter.param_type_name]].append(
                    record
                )
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
