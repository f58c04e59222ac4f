"""Draws a contact sheet as a PNG, in strips from above to below: one row of cells is in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from shared.sheets.arrangement import Arrangement, Block, Row
from shared.sheets.lettering import Letters
from shared.sheets.png import PngWriter

MAX_SIDE: Final = 16_000
MAX_PIXELS: Final = 32_000_000
MAX_CELL: Final = 1024
"""Pixels of the longer side of a cell: a strip is never larger than 16,000 by this."""

_LEAST_CELL: Final = 112  # wide enough for a title, as long as the sheet has room
_LEAST_SCALE: Final = 1e-3
_LEAST_WIDTH: Final = 480
_MARGIN: Final = 32
_GAP: Final = 8
_GAP_OF_BLOCKS: Final = 32
_TALLEST: Final = 1.6  # times as high as wide, before blocks stand side by side
_PAPER, _WELL, _INK, _FAINT, _BAD = "#ffffff", "#f1efe9", "#23221f", "#6b675e", "#a3341f"
_LINES: Final = 3  # of a title
_PROMPT_LINES: Final = 4
_REST_LINES: Final = 8
_SHRINK: Final = 0.97


@dataclass(frozen=True)
class Empty:
    """What a cell without a picture says: `cancelled`, `failed` and why."""

    state: str
    reason: str = ""


Cell = Image.Image | Empty
DrawCell = Callable[[int, int, int], Cell]
"""Returns the picture of the image of this index, scaled to fit into width and height; or why there is none."""


@dataclass(frozen=True)
class Words:
    """The surroundings of the cells: the title above, the rest beneath."""

    title: str
    rest: Sequence[str]


@dataclass(frozen=True)
class Sheet:
    """A drawn sheet."""

    png: bytes
    width: int
    height: int


@dataclass(frozen=True)
class _Strip:
    height: int
    draw: Callable[[ImageDraw.ImageDraw, Image.Image], None]


@dataclass(frozen=True)
class _Plan:
    """The measures of a sheet at one scale, in pixels."""

    cell: tuple[int, int]
    heading: int  # the width of the titles of rows
    columns: int
    across: int  # blocks side by side
    letters: Letters

    @property
    def block(self) -> int:
        """The width of a block."""
        return self.heading + self.columns * (self.cell[0] + _GAP) - _GAP

    @property
    def width(self) -> int:
        return max(2 * _MARGIN + self.across * (self.block + _GAP_OF_BLOCKS) - _GAP_OF_BLOCKS, _LEAST_WIDTH)

    def left(self, block: int, column: int | None = None) -> int:
        """Return where a block begins, or one of its columns."""
        start = _MARGIN + block * (self.block + _GAP_OF_BLOCKS)
        return start if column is None else start + self.heading + column * (self.cell[0] + _GAP)


def draw(
    arrangement: Arrangement, words: Words, largest: tuple[int, int], draw_cell: DrawCell, texts: Mapping[str, str]
) -> Sheet:
    """Return the sheet of cells whose pictures are at most `largest` wide and high; `texts` are stored in the file.

    All pictures are scaled alike, as far as is needed for sides of 16,000 pixels and 32 megapixels. Raises ValueError
    for more cells than such a sheet can have.
    """
    strips, width = _fitting(arrangement, words, largest, draw_cell)
    height = sum(strip.height for strip in strips)
    png = PngWriter(width, height, texts)
    for strip in strips:
        paper = Image.new("RGB", (width, strip.height), _PAPER)
        strip.draw(ImageDraw.Draw(paper), paper)
        png.write(np.asarray(paper))
    return Sheet(png.ended(), width, height)


def _fitting(
    arrangement: Arrangement, words: Words, largest: tuple[int, int], draw_cell: DrawCell
) -> tuple[list[_Strip], int]:
    """Return the strips at the largest scale at which the sheet is small enough, and its width."""
    scale, across = min(1.0, MAX_CELL / max(largest)), 1
    most_across = len(arrangement.blocks) if arrangement.block else 1
    while scale > _LEAST_SCALE:
        plan = _plan(arrangement, largest, scale, across)
        strips = list(_strips(arrangement, words, plan, draw_cell))
        height = sum(strip.height for strip in strips)
        over = max(plan.width / MAX_SIDE, height / MAX_SIDE, math.sqrt(plan.width * height / MAX_PIXELS))
        if height > _TALLEST * plan.width and across < most_across:
            across += 1
        elif over > 1:
            scale *= min(_SHRINK, 1 / over)
        else:
            return strips, plan.width
    raise ValueError("too many cells for a sheet")


def _plan(arrangement: Arrangement, largest: tuple[int, int], scale: float, across: int) -> _Plan:
    columns = max(len(block.columns) for block in arrangement.blocks)
    least = round(_LEAST_CELL * min(1.0, 4 * scale))
    width, height = max(1, least, round(largest[0] * scale)), max(1, round(largest[1] * scale))
    letters = Letters(min(22, max(13, width // 20)))
    titles = {row.title for block in arrangement.blocks for row in block.rows} | {f"{arrangement.rows} ↓"}
    heading = min(max(letters.width(title[:200]) for title in titles) + 2 * _GAP, max(width, 160))
    return _Plan((width, height), heading if arrangement.rows else 0, columns, across, letters)


def _strips(arrangement: Arrangement, words: Words, plan: _Plan, draw_cell: DrawCell) -> Iterator[_Strip]:
    inner = plan.width - 2 * _MARGIN
    title = Letters(round(plan.letters.size * 1.25))
    yield _text(title, title.lines(words.title, inner, _PROMPT_LINES), _INK, above=_MARGIN)
    for start in range(0, len(arrangement.blocks), plan.across):
        blocks = arrangement.blocks[start : start + plan.across]
        if arrangement.block:
            yield _block_titles(title, [f"{arrangement.block}: {block.title}" for block in blocks], plan)
        yield _headings(arrangement, blocks, plan)
        for rows in zip_longest(*(block.rows for block in blocks)):
            yield _Strip(plan.cell[1] + _GAP, partial(_draw_rows, rows, plan, draw_cell))
    rest = [line for text in words.rest for line in plan.letters.lines(text, inner, _REST_LINES)]
    yield _text(plan.letters, rest, _FAINT, above=_GAP, below=_MARGIN)


def _text(letters: Letters, lines: Sequence[str], ink: str, *, above: int, below: int = _GAP) -> _Strip:
    def write(pen: ImageDraw.ImageDraw, _: Image.Image) -> None:
        for number, line in enumerate(lines):
            pen.text((_MARGIN, above + number * letters.line), line, ink, letters.font)

    return _Strip(above + len(lines) * letters.line + below, write)


def _block_titles(letters: Letters, titles: Sequence[str], plan: _Plan) -> _Strip:
    def write(pen: ImageDraw.ImageDraw, _: Image.Image) -> None:
        for number, title in enumerate(titles):
            line = "".join(letters.lines(title, max(plan.block, _LEAST_WIDTH if plan.across == 1 else 0), 1))
            pen.text((plan.left(number), 2 * _GAP), line, _INK, letters.font)

    return _Strip(2 * _GAP + letters.line + _GAP, write)


def _headings(arrangement: Arrangement, blocks: Sequence[Block], plan: _Plan) -> _Strip:
    """Return the strip of the column titles; at their left, or above them, stands what columns and rows are."""
    letters = plan.letters
    titles = [[letters.lines(title, plan.cell[0], _LINES) for title in block.columns] for block in blocks]
    corner = [f"{arrangement.columns} →", f"{arrangement.rows} ↓"] if arrangement.rows else [arrangement.columns]
    above = 0 if arrangement.rows else letters.line
    rows = max(len(corner) if arrangement.rows else 1, *(len(lines) for block in titles for lines in block))

    def write(pen: ImageDraw.ImageDraw, _: Image.Image) -> None:
        for block, columns in enumerate(titles):
            for number, text in enumerate(corner):
                line = "".join(letters.lines(text, plan.heading - _GAP if arrangement.rows else plan.block, 1))
                top = (rows - len(corner) + number) * letters.line if arrangement.rows else 0
                pen.text((plan.left(block), top), line, _FAINT, letters.font)
            for column, lines in enumerate(columns):
                for number, line in enumerate(lines):
                    left = plan.left(block, column) + (plan.cell[0] - letters.width(line)) // 2
                    top = above + (rows - len(lines) + number) * letters.line
                    pen.text((left, top), line, _INK, letters.font)

    return _Strip(above + rows * letters.line + _GAP, write)


def _draw_rows(
    rows: Sequence[Row | None], plan: _Plan, draw_cell: DrawCell, pen: ImageDraw.ImageDraw, paper: Image.Image
) -> None:
    for block, row in enumerate(rows):
        if row is not None:
            _draw_title(row.title, plan, plan.left(block), pen)
            for column, index in enumerate(row.images):
                _draw_cell(draw_cell(index, *plan.cell), plan, plan.left(block, column), pen, paper)


def _draw_title(title: str, plan: _Plan, left: int, pen: ImageDraw.ImageDraw) -> None:
    letters, height = plan.letters, plan.cell[1]
    lines = letters.lines(title, plan.heading - 2 * _GAP, max(1, height // letters.line)) if title else []
    top = (height - len(lines) * letters.line) // 2
    for number, line in enumerate(lines):
        pen.text((left, top + number * letters.line), line, _INK, letters.font)


def _draw_cell(cell: Cell, plan: _Plan, left: int, pen: ImageDraw.ImageDraw, paper: Image.Image) -> None:
    width, height = plan.cell
    if not isinstance(cell, Empty):
        paper.paste(cell, (left + (width - cell.width) // 2, (height - cell.height) // 2))
        return
    letters, inner = plan.letters, width - 2 * _GAP
    pen.rectangle((left, 0, left + width - 1, height - 1), _WELL, _FAINT)
    most = max(1, (height - _GAP) // letters.line)
    lines = [*letters.lines(cell.state, inner, 1), *letters.lines(cell.reason, inner, most)][:most]
    top = (height - len(lines) * letters.line) // 2
    for number, line in enumerate(lines):
        ink = _FAINT if number else _BAD
        pen.text((left + (width - letters.width(line)) // 2, top + number * letters.line), line, ink, letters.font)
