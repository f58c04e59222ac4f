"""What people and scripts see: answers on stdout, everything else on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from client import errors as client_errors
from shared import quantities
from shared.errors import FarmError, Refused, explain

Row = Sequence[object]

# Characters that could harm a terminal: they control it (C0 but tab and line feed, DEL, C1), turn its lines around
# (bidi), break them, or be half a character.
_UNSHOWN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def shown(text: str) -> str:
    """Return `text` without what could control a terminal, or make it show something else than is written."""
    return _UNSHOWN.sub("", text)


class Terminal(Console):
    """A console through which prompts, names and reasons of others pass: they are shown, and never obeyed."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of `renderable`; the console's own control segments stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Leave the error to the printing code: a message may be lost, an answer may not."""
        del self._buffer[:]
        raise BrokenPipeError


out = Terminal(highlight=False, soft_wrap=True)
err = Terminal(highlight=False, soft_wrap=True, stderr=True)

_FOLDED_WIDTH: Final = 12  # characters that a column keeps that takes several lines
_GAP: Final = 2  # characters between columns
_COLOURS = {"succeeded": "green", "ready": "green", "running": "cyan", "failed": "red", "cancelled": "yellow"}


def progress(line: str) -> None:
    """Print a line of progress on stderr; it is lost if nobody reads that."""
    with suppress(OSError, ValueError):
        err.print(escape(line), style="dim")


def no_progress(line: str) -> None:
    """Print nothing, because the answer is for a program."""


def warn(line: str) -> None:
    """Say what went wrong beside an answer; lost if nobody reads it."""
    with suppress(OSError, ValueError):
        err.print(line, style="red", markup=False)


def answer(line: str) -> None:
    """Print a line of the answer, as it is."""
    out.print(line, markup=False)


def answer_json(value: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Print the answer for a program: one line of JSON."""
    if sys.stdout is not None:  # it was closed
        sys.stdout.write(_json(value) + "\n")
        sys.stdout.flush()


def _json(value: object) -> str:
    """Return one line of ASCII, which controls no terminal either."""
    return json.dumps(value, default=str).replace("\x7f", "\\u007f")


def table(headings: Sequence[str], rows: Iterable[Row], empty: str, *, folded: Collection[str] = ()) -> None:
    """Print rows under headings, or `empty` if there are none.

    Where a terminal is too narrow every column is cut, and a sign says so. Where columns are `folded`, by their
    headings, those take several lines, and all is shown: the table is wider than the terminal rather than cut.
    """
    made = Table(*headings, box=None, header_style="bold", pad_edge=False, padding=(0, _GAP // 2))
    for row in rows:
        made.add_row(*("" if cell is None else cell if isinstance(cell, str) else str(cell) for cell in row))
    least = -_GAP
    for column in made.columns if folded else ():
        widest = max(Text.from_markup(str(cell)).cell_len for cell in (column.header, *column.cells))
        column.no_wrap, column.overflow = column.header not in folded, "fold"
        column.min_width = widest if column.no_wrap else min(widest, _FOLDED_WIDTH)
        least += column.min_width + _GAP
    made.width = least if least > out.width else None
    out.print(made if made.row_count else escape(empty))


def state(name: str) -> str:
    """Return a state in its colour, as markup."""
    colour = _COLOURS.get(name)
    return f"[{colour}]{name}[/]" if colour else name


def minute(instant: str | None) -> str:
    """Return an instant of the API, in UTC, to the minute; empty for none."""
    return (instant or "")[:16].replace("T", " ")


def age(moment: str | None) -> str:
    """Return how long ago an ISO time was, roughly: `40 s`, `12 min`, `3 h`, `5 d`."""
    if moment is None:
        return ""
    return quantities.age((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def shorten(text: str, width: int = 48) -> str:
    """Return the beginning of `text` in one line, as markup."""
    flat = " ".join(shown(text).split())
    return escape(flat if len(flat) <= width else f"{flat[: width - 1]}…")


def complain(error: FarmError | client_errors.FarmError, *, as_json: bool) -> None:
    """Say what went wrong and, where the error knows it, what would be accepted."""
    fields = error.fields if isinstance(error, Refused | client_errors.Refused) else ()
    if as_json:
        problems = [vars(one) for one in fields]
        problem = {"error": type(error).__name__, "detail": explain(error), "errors": problems}
        err.file.write(_json(problem) + "\n")
        return
    err.print(f"[red]{escape(explain(error))}[/]")
    for one in fields:
        colon = ":" if one.message[:1].isupper() else ""  # a sentence of its own, or the rest of one
        err.print(f"  [bold]{escape(one.field)}[/]{colon} {escape(one.message)}. Accepted: {escape(one.accepted)}")
