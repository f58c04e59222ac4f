"""`farm styles`: the styles of this machine's farm, in the file that it reads at every submission."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import typer
from rich.markup import escape

from cli import terminal
from cli.connect import connect
from cli.terminal import shorten, table
from shared.errors import FarmError
from shared.prompts import styles
from shared.prompts.styles import Style
from shared.settings import Settings

_STYLE: Final = ("style", "prompt", "negative prompt")


def show(settings: Settings, *, as_json: bool) -> None:
    """Print the styles of the farm at FARM_URL, else of this machine's."""
    if settings.url:
        with connect(settings) as client:
            found = [Style(**one) for one in client.catalogue("styles")["styles"]]
    else:
        found = list(styles.load(settings.styles_path).values())
    if as_json:
        return terminal.answer_json({"styles": [style._asdict() for style in found]})
    rows = ((escape(style.name), shorten(style.prompt), shorten(style.negative_prompt)) for style in found)
    return table(_STYLE, rows, "No style. `farm styles add NAME --prompt TEXT` adds one.")


def add(settings: Settings, style: Style, *, replace: bool, as_json: bool) -> None:
    """Add a style, or replace the one of its name."""
    if not style.name.strip() or style.name.startswith("#"):
        raise typer.BadParameter("A style's name has letters in it and does not begin with #.", param_hint="NAME")
    styles.add(_own_file(settings), style, replace=replace)
    _answer({"added": style.name}, f"{style.name}: added.", as_json=as_json)


def remove(settings: Settings, name: str, *, yes: bool, as_json: bool) -> None:
    """Remove a style, once the person has said so."""
    path = _own_file(settings)
    style = styles.find(styles.load(path), name)
    if not yes:
        typer.confirm(f"Remove the style {name!r} ({style.prompt or style.negative_prompt})?", abort=True, err=True)
    styles.remove(path, name)
    _answer({"removed": name}, f"{name}: removed. The file as it was: {path}.bak", as_json=as_json)


def _own_file(settings: Settings) -> Path:
    """Return this machine's file. Raises FarmError where the farm that is meant is another machine's."""
    if settings.url:
        raise FarmError("The styles of the farm in FARM_URL lie on its own machine: change them there.")
    return settings.styles_path


def _answer(answer: dict[str, str], line: str, *, as_json: bool) -> None:
    if as_json:
        terminal.answer_json(answer)
    else:
        terminal.answer(line)
