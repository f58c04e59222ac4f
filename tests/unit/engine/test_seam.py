"""Figures of an architecture stand in the packages that read checkpoints, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
READERS = tuple(ROOT / "worker" / "engine" / package for package in ("architectures", "files", "loading"))
ONE_TOKENIZER = ROOT / "shared" / "prompts" / "tokenizer.py"
FIGURES = re.compile(
    r"0\.18215|0\.13025|\b77\b|cross_attention_dim|projection_class|in_channels"
    r"|model\.diffusion_model|cond_stage_model|first_stage_model|conditioner\.embedders"
)


def test_scales_widths_and_prefixes_of_checkpoints_stand_where_these_are_read() -> None:
    files = [path for package in ("worker", "shared", "api", "cli") for path in (ROOT / package).rglob("*.py")]
    readers = [path for path in files if path == ONE_TOKENIZER or any(map(path.is_relative_to, READERS))]
    others = set(files) - set(readers)
    assert len(others) > 100
    found = [f"{path.relative_to(ROOT)}: {one[0]}" for path in others for one in FIGURES.finditer(path.read_text())]
    assert found == []
