"""`farm models`: what the farm knows of its model files, as a table."""

from __future__ import annotations

from collections import Counter
from typing import Final

from rich.markup import escape

from cli import terminal
from cli.terminal import Row, table
from client.client import Client, Json
from shared.errors import FarmError
from shared.quantities import counted, data_size

_CHECKPOINT: Final = ("checkpoint", "hash", "architecture", "predicts", "size", "native", "can be used")
_OTHER: Final = ("other file", "kind")
_EMPTY: Final = (
    "No checkpoint. Put .safetensors or .ckpt files into the models folder (FARM_MODELS) of a worker's machine."
)


def show(client: Client, *, architecture: str | None, prediction: str | None, rescan: bool, as_json: bool) -> None:
    """Print the checkpoints that the farm knows, or some of them, and why it cannot use some.

    Without a filter, what else lies in the models folder follows.
    """
    if rescan:
        client.rescan()
    catalogue = client.catalogue("checkpoints", architecture=architecture, prediction=prediction)
    if not (architecture or prediction):
        catalogue |= client.catalogue("others")
    elif "counts" not in catalogue:
        raise FarmError("The farm's API is of an older version, which lists all checkpoints: leave the filters out.")
    if as_json:
        terminal.answer_json(catalogue)
    else:
        _print(catalogue)


def _print(catalogue: Json) -> None:
    names = Counter(one["name"].casefold() for one in catalogue["checkpoints"])
    shown = [
        one | ({"name": one["path"]} if names[one["name"].casefold()] > 1 else {}) for one in catalogue["checkpoints"]
    ]
    table(_CHECKPOINT, map(_row, shown), "No checkpoint is like that." if catalogue.get("total") else _EMPTY)
    if catalogue.get("total") and "counts" in catalogue:
        terminal.answer(_summary(catalogue))
    if others := catalogue.get("others"):
        table(_OTHER, ((escape(one["path"]), escape(one["reason"])) for one in others), "")


def _row(model: Json) -> Row:
    remarks = (model.get("note"), None if model.get("has_vae", True) else "has no VAE inside")
    usable = "[green]yes[/]" + "".join(f"; {escape(one)}" for one in remarks if one)
    return (
        escape(model["name"]),
        (model["sha256"] or "")[:10],
        model["architecture"],
        model.get("prediction"),
        data_size(model["size"]),
        f"{model['native_size']} px" if model["native_size"] else "",
        usable if model["usable"] else f"[red]no:[/] {escape(model['reason'] or '')}",
    )


def _summary(catalogue: Json) -> str:
    """Return how many checkpoints are shown, and how many each filter would show: `2 of 5 checkpoints; sd1 3, …`."""
    shown, total = len(catalogue["checkpoints"]), catalogue["total"]
    numbers = [
        f"{facet}: " + ", ".join(f"{value} {count}" for value, count in counts.items())
        for facet, counts in catalogue["counts"].items()
        if counts
    ]
    all_of = counted(total, "checkpoint")
    return "; ".join([all_of if shown == total else f"{shown} of {all_of}", *numbers])
