"""`farm usage`: what images took of the farm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.markup import escape

from cli import terminal
from cli.terminal import table
from client.client import Client, Json
from shared.quantities import counted, data_size, duration

_HEADINGS: Final = ("day", "owner", "checkpoint", "pictures", "GPU time", "size")
_SHORT: Final = 10  # characters of a hash by which people know a file


def show(client: Client, asked: Mapping[str, str | None], *, as_csv: bool, as_json: bool) -> None:
    """Print usage of the days that are asked for, and its sum."""
    if as_csv:
        return terminal.answer(client.usage_csv(**asked).rstrip())
    found = client.usage(**asked)
    if as_json:
        return terminal.answer_json(found)
    empty = f"Nothing was rendered from {found['first']} to {found['last']}."
    table(_HEADINGS, map(_row, found["days"]), empty, folded=("owner", "checkpoint"))
    if found["days"]:
        total = found["total"]
        pictures = counted(total["images"], "picture")
        terminal.answer(f"{pictures}, {duration(total['gpu_seconds'])} of GPU time, {data_size(total['bytes'])}")
    return None


def _row(line: Json) -> tuple[object, ...]:
    name = line["name"] or line["checkpoint"][:_SHORT]
    size = data_size(line["bytes"])
    return line["day"], escape(line["owner"]), escape(name), f"{line['images']:,}", duration(line["gpu_seconds"]), size
