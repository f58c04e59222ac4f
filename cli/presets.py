"""`farm presets`: parameters that the farm keeps for you under names."""

from __future__ import annotations

import json
from typing import Final

from rich.markup import escape

from cli import terminal
from cli.terminal import age, shorten, table
from client.client import Client, Json
from shared.params.fields import RANDOM_SEED

_PRESET: Final = ("preset", "changed", "parameters")


def show(client: Client, name: str | None, *, as_json: bool) -> None:
    """Print your presets, or the parameters of one."""
    if name is not None:
        return terminal.answer_json(client.preset(name)["params"])
    found = client.presets()
    if as_json:
        return terminal.answer_json({"presets": found})
    return table(_PRESET, map(_row, found), "No preset. `farm presets keep NAME JOB` keeps the parameters of a job.")


def keep(client: Client, name: str, job_id: int, *, as_json: bool) -> None:
    """Keep the parameters of a job under a name; its seed would give the same picture each time, and is left out."""
    kept = client.keep_preset(name, client.job(job_id)["params"] | {"seed": RANDOM_SEED})
    if as_json:
        return terminal.answer_json(kept)
    left_out = f" Left out, because they hold pictures: {', '.join(kept['left_out'])}." if kept["left_out"] else ""
    return terminal.answer(f"{name}: kept.{left_out}")


def drop(client: Client, name: str, *, as_json: bool) -> None:
    """Delete a preset."""
    client.drop_preset(name)
    if as_json:
        terminal.answer_json({"deleted": name})
    else:
        terminal.answer(f"{name}: deleted.")


def _row(preset: Json) -> tuple[str, str, str]:
    said = json.dumps(preset["params"], ensure_ascii=False)
    return escape(preset["name"]), age(preset["changed_at"]), escape(shorten(said))
