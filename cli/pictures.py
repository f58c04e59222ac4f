"""`farm pictures`: finished pictures of all jobs, found by their parameters; as a table, or saved into a folder."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Final

from rich.markup import escape

from cli import terminal
from cli.render import check_folder, save
from cli.terminal import Row, age, shorten, table
from client.client import Client, Json
from shared.accounts.principal import EVERYBODY

_PICTURE: Final = ("picture", "age", "seed", "size", "marks", "prompt")


def show(client: Client, filters: Mapping[str, object], most: int, folder: Path | None, *, as_json: bool) -> None:
    """Print at most `most` pictures that `filters` find, those of `GET /api/v1/pictures`, and save them."""
    found = list(islice(client.pictures(limit=min(most, 200), **filters), most))
    files = [_saved(client, picture, folder) for picture in found] if folder else []
    if as_json:
        terminal.answer_json({"pictures": found, "files": [str(file.absolute()) for file in files]})
    elif folder:
        for file in files:
            terminal.answer(str(file))
    if not as_json and not files:
        empty = "No picture is like that." if filters else "No finished picture yet."
        is_everybodys = filters.get("owner") == EVERYBODY
        rows = [(escape(one["owner"]), *_row(one)) if is_everybodys else _row(one) for one in found]
        headings = ("owner", *_PICTURE) if is_everybodys else _PICTURE
        table(headings, rows, empty, folded=("owner", "marks", "prompt"))


def _saved(client: Client, picture: Json, folder: Path) -> Path:
    check_folder(folder)
    stem = f"{picture['job']:05d}-{picture['index']}-seed{picture['params']['seed']}"
    return save(client, {"links": {"page": picture["links"]["page"]}}, picture, folder, stem)


def _row(picture: Json) -> Row:
    params = picture["params"]
    marks = ["favourite"] if picture["favourite"] else []
    return (
        picture["id"],
        age(picture["ended_at"]),
        params["seed"],
        f"{params['width']}x{params['height']}",
        escape(", ".join([*marks, *picture["tags"]])),
        shorten(params["prompt"]),
    )
