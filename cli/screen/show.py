"""Shows finished pictures in the terminal, as well as that can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from PIL import Image
from rich.console import Console

from cli.screen import drawing, query
from cli.screen.choice import Show
from cli.screen.drawing import Place
from cli.screen.query import Abilities

_MOST: Final = 9  # pictures, side by side
_COLUMNS: Final = 100
_LINES_LEFT: Final = 6  # for the lines around the picture


def chosen(wanted: Show, console: Console, ask: Callable[[], Abilities] = query.ask) -> tuple[Show, Abilities]:
    """Return how pictures are shown on a console, never `auto`, and what is known of its terminal.

    Ask it before anything takes long: what is typed meanwhile would come between question and answer.
    """
    is_there = console.is_terminal and not console.is_dumb_terminal
    if wanted is Show.NEVER or not is_there:
        return Show.NEVER, Abilities()
    abilities = ask() if wanted in {Show.AUTO, Show.KITTY, Show.SIXEL} else Abilities()
    if wanted is not Show.AUTO:
        return wanted, abilities
    if abilities.kitty:
        return Show.KITTY, abilities
    if abilities.sixel:
        return Show.SIXEL, abilities
    has_colours = console.color_system in {"256", "truecolor"} and not console.no_color
    return (Show.BLOCKS if has_colours and console.encoding.startswith("utf") else Show.NEVER), abilities


def show(files: Sequence[Path], how: Show, abilities: Abilities, console: Console) -> None:
    """Draw pictures on a console, the first few side by side. A picture that cannot be drawn still lies in its file."""
    if how is Show.NEVER or not files:
        return
    try:
        picture = drawing.together([file.read_bytes() for file in files[:_MOST]])
    except (OSError, Image.DecompressionBombError):
        return
    place = Place(min(console.width, _COLUMNS), max(4, console.height - _LINES_LEFT), abilities.cell)
    console.file.write(drawn(picture, how, place, true_colours=console.color_system == "truecolor"))
    console.file.flush()


def drawn(picture: Image.Image, how: Show, place: Place, *, true_colours: bool) -> str:
    """Return the characters that show a picture."""
    if how is Show.KITTY:
        return drawing.kitty(picture, place)
    if how is Show.SIXEL:
        return drawing.sixel(picture, place)
    return drawing.blocks(picture, place, true_colours=true_colours)
