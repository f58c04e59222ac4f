"""How the images of a sweep stand on its sheet: columns, rows and blocks, for the page and for the PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from shared.params.job_spec import Axis

_COLUMNS_OF_ONE_AXIS: Final = 10


@dataclass(frozen=True)
class Row:
    """Cells side by side, with the title of their row; empty where the sheet has only columns."""

    title: str
    images: tuple[int, ...]  # by index


@dataclass(frozen=True)
class Block:
    """Rows under one line of column titles, with the block's own title; empty where the sheet has only one."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Arrangement:
    """A whole sheet: what its columns, rows and blocks stand for, and its blocks. Labels of what it lacks are empty."""

    columns: str
    rows: str
    block: str
    blocks: tuple[Block, ...]


def arranged(axes: Sequence[Axis]) -> Arrangement:
    """Return the sheet of a job with one to three axes: the last gives the columns, those before it rows and blocks.

    A single long axis goes on in further lines.
    """
    *outer, last = axes
    titles = tuple(value.title for value in last.values)
    labels = [axis.label for axis in outer]
    if not outer:
        return Arrangement(last.label, "", "", tuple(_lines(titles)))
    *before, row_axis = outer
    blocks, first = [], 0
    for block in product(*(axis.values for axis in before)):
        rows = []
        for value in row_axis.values:
            rows.append(Row(value.title, tuple(range(first, first + len(titles)))))
            first += len(titles)
        blocks.append(Block(", ".join(value.title for value in block), titles, tuple(rows)))
    return Arrangement(last.label, labels[-1], labels[0] if before else "", tuple(blocks))


def _lines(titles: tuple[str, ...]) -> list[Block]:
    numbered = list(enumerate(titles))
    parts = [numbered[at : at + _COLUMNS_OF_ONE_AXIS] for at in range(0, len(numbered), _COLUMNS_OF_ONE_AXIS)]
    return [Block("", tuple(title for _, title in part), (Row("", tuple(at for at, _ in part)),)) for part in parts]
