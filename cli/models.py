"""`farm models`: what the farm knows of its model files, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from rich.markup import escape

from cli import terminal
from cli.terminal import Row, table
from client.client import Client, Json
from client.errors import NotFound
from shared.errors import FarmError
from shared.models.details import Details
from shared.models.kinds import KINDS
from shared.quantities import counted, data_size

_CHECKPOINT: Final = ("checkpoint", "hash", "architecture", "predicts", "size", "native", "can be used")
_FILE: Final = ("hash", "architecture", "details", "size", "can be used")
_OTHER: Final = ("other file", "kind")
_EMPTY: Final = (
    "No checkpoint. Put .safetensors or .ckpt files into the models folder (FARM_MODELS) of a worker's machine."
)
_OLDER: Final = "The farm's API is of an older version, which lists all checkpoints: leave the filters out."


def show(client: Client, filters: Mapping[str, str | None], *, rescan: bool, as_json: bool) -> None:
    """Print the model files that the farm knows, kind by kind, or some of them, and why it cannot use some.

    `filters` are those of `GET /api/v1/models`; None: any.
    """
    if rescan:
        client.rescan()
    wanted = {name: value for name, value in filters.items() if value}
    catalogue: Json = {}
    if not wanted.keys() & {"kind", "search"}:
        catalogue = client.catalogue("checkpoints", **wanted)
        if wanted and "counts" not in catalogue:
            raise FarmError(_OLDER)
    if not wanted or wanted.keys() & {"kind", "search"}:
        catalogue["models"] = _all(client, wanted)
    if as_json:
        terminal.answer_json(catalogue)
    else:
        _print(catalogue, is_filtered=bool(wanted))


def _all(client: Client, wanted: Mapping[str, str]) -> list[Json]:
    """Return the files of all kinds. Raises FarmError if an older API cannot filter them."""
    try:
        return list(client.models(**wanted))
    except NotFound:
        if wanted:
            raise FarmError(_OLDER) from None
        return [one | {"kind": "other"} for one in client.catalogue("others")["others"]]


def _print(catalogue: Json, *, is_filtered: bool) -> None:
    files: dict[str, list[Json]] = {}
    for one in catalogue.get("models", ()):
        files.setdefault(one["kind"], []).append(one)
    checkpoints = catalogue.get("checkpoints", files.get("checkpoint", []))
    if checkpoints or "checkpoints" in catalogue:
        empty = "No checkpoint is like that." if catalogue.get("total") else _EMPTY
        table(_CHECKPOINT, map(_row, _by_paths(checkpoints)), empty)
    if catalogue.get("total") and "counts" in catalogue:
        terminal.answer(_summary(catalogue))
    for kind, some in files.items():
        if kind == "other":
            table(_OTHER, ((escape(one["path"]), escape(one["reason"])) for one in some), "")
        elif kind != "checkpoint":
            table((_label(kind), *_FILE), map(_file_row, _by_paths(some)), "")
    if is_filtered and not files and not checkpoints and "checkpoints" not in catalogue:
        terminal.answer("No file is like that.")


def _label(kind: str) -> str:
    return KINDS[kind].label if kind in KINDS else kind


def _by_paths(files: Iterable[Json]) -> list[Json]:
    """Return files of which those that share a name are called by their paths."""
    names = Counter(one["name"].casefold() for one in files)
    return [one | ({"name": one["path"]} if names[one["name"].casefold()] > 1 else {}) for one in files]


def _file_row(file: Json) -> Row:
    usable = "[green]yes[/]" + (f"; {escape(file['note'])}" if file.get("note") else "")
    return (
        escape(file["name"]),
        (file["sha256"] or "")[:10],
        file["architecture"],
        escape(Details.read(file.get("details")).words(file["name"])),
        data_size(file["size"]),
        usable if file["usable"] else f"[red]no:[/] {escape(file['reason'] or '')}",
    )


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
