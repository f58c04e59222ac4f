"""`farm audit`: who did what with the farm."""

from __future__ import annotations

from typing import Final

from rich.markup import escape

from cli import terminal
from cli.terminal import age, table
from client.client import Client, Json

_HEADINGS: Final = ("age", "who", "action", "about")


def show(client: Client, owner: str | None, action: str | None, *, limit: int, as_json: bool) -> None:
    """Print the latest lines."""
    page = client.audit(owner=owner, action=action, limit=str(limit))
    if as_json:
        return terminal.answer_json(page)
    return table(_HEADINGS, map(_row, page["lines"]), "There is no such line.", folded=("who", "about"))


def _row(line: Json) -> tuple[object, ...]:
    whose = f" of {line['whose']}" if line["whose"] not in {None, line["owner"]} else ""
    about = ": ".join(filter(None, (f"{line['object']}{whose}", line["detail"])))
    return age(line["at"]), escape(line["owner"]), escape(line["action"]), escape(about)
