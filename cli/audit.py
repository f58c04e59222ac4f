"""`farm audit`: who did what with the farm."""

from __future__ import annotations

from typing import Final

from rich.markup import escape

from cli import terminal
from cli.terminal import age, table
from client.client import Client, Json

_HEADINGS: Final = ("age", "who", "role", "action", "object", "of", "detail")


def show(client: Client, owner: str | None, action: str | None, *, limit: int, as_json: bool) -> None:
    """Print the latest lines."""
    page = client.audit(owner=owner, action=action, limit=str(limit))
    if as_json:
        return terminal.answer_json(page)
    return table(_HEADINGS, map(_row, page["lines"]), "No line.")


def _row(line: Json) -> tuple[object, ...]:
    named = (escape(line["owner"]), line["role"], line["action"], escape(line["object"]))
    return (age(line["at"]), *named, escape(line["whose"] or ""), escape(line["detail"]))
