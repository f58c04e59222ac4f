"""The table that a run prints last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from bench.card.measures import Measure
from bench.card.parts import PARTS

HEAD: Final = ("part", "measure", "value", "target", "roofline", "peer", "")


def table(measures: Iterable[Measure]) -> str:
    """Return a line for each measure, as Markdown whose columns are aligned."""
    rows = [HEAD, *(_row(measure) for measure in measures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [_line(row, widths) for row in rows]
    return "\n".join([lines[0], _line(["-" * width for width in widths], widths), *lines[1:]])


def _row(measure: Measure) -> Sequence[str]:
    return (
        f"{measure.part} {PARTS[measure.part].name}",
        measure.name,
        amount(measure),
        measure.target,
        "" if measure.of_roofline is None else f"{measure.of_roofline:.0%}",
        "" if measure.of_peer is None else f"{measure.of_peer:.2f}x",
        {None: "", True: "ok", False: "FAIL"}[measure.is_ok],
    )


def amount(measure: Measure) -> str:
    """Return the value with its unit, to three or four figures."""
    if isinstance(measure.value, str):
        return measure.value
    digits = f"{measure.value:.4g}" if abs(measure.value) < 1000 else f"{measure.value:,.0f}"
    return f"{digits} {measure.unit}".rstrip()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return (
        "| " + " | ".join(cell.replace("|", "/").ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
    )
