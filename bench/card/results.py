"""What a run has found so far: in memory, and in a file that is whole at every moment."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench.card.measures import Measure, failures
from bench.card.table import table

JSON: Final = "card.json"
TABLE: Final = "card.md"


class Results:
    """Measures in the order in which they were found, written to `folder` whenever one is added."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.measures: list[Measure] = []
        self.seconds: dict[int, float] = {}  # that each part took
        self._write()

    def add(self, measure: Measure) -> None:
        """Add a measure."""
        self.measures.append(measure)
        self._write()

    def ended(self, part: int, seconds: float) -> None:
        """Note how long a part took."""
        self.seconds[part] = seconds
        self._write()

    def table(self) -> str:
        """Return the table of what there is, and leave it beside the figures."""
        text = table(self.measures)
        (self._folder / TABLE).write_text(f"{text}\n", encoding="utf-8")
        return text

    def _write(self) -> None:
        figures = {
            "seconds": {str(part): round(seconds, 2) for part, seconds in self.seconds.items()},
            "failed": [f"{one.part} {one.name}" for one in failures(self.measures)],
            "measures": [asdict(measure) for measure in self.measures],
        }
        partial = self._folder / f"{JSON}.partial"
        partial.write_text(f"{json.dumps(figures, indent=1, ensure_ascii=False)}\n", encoding="utf-8")
        partial.replace(self._folder / JSON)
