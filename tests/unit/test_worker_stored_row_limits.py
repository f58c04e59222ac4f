"""What a worker measured on its processor is known to the next worker, and a damaged file is measured again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from shared import row_limit_files
from shared.row_limit_files import Processor
from worker.engine.row_limits import RowLimit, RowLimits
from worker.render.stored_row_limits import stored

XEON = Processor("Xeon", 2, "2.13")


def three_rows_at_most(rows: Tensor) -> Tensor:
    """Return other bits for a row alone and for more than three rows."""
    return rows * 3 + (1e-6 * rows if len(rows) == 1 or len(rows) > 3 else 0)


def test_limits_outlive_the_process_and_are_shared(tmp_path: Path) -> None:
    first, second = (RowLimits(*stored(tmp_path, XEON), clock=lambda: 0.0) for _ in range(2))
    for row_limits, text in ((first, "linear 8>8"), (second, "linear 8>9")):
        row_limits.layer(text, 2).answer(three_rows_at_most, torch.zeros(6, 8))
    later, _ = stored(tmp_path, XEON)
    assert later == first.known | second.known
    assert set(later.values()) == {RowLimit(3, is_final=True, is_lone_alike=False)}


@pytest.mark.parametrize("damage", [b"", b"\x00\xff" * 500, b"[1, 2", b'{"shape": 7}\n', b"null\n[[[[", b"[" * 100_000])
def test_a_damaged_file_is_measured_again(tmp_path: Path, damage: bytes) -> None:
    file = row_limit_files.path(tmp_path, XEON)
    file.parent.mkdir(parents=True)
    file.write_bytes(damage)
    row_limits = RowLimits(*stored(tmp_path, XEON), clock=lambda: 0.0)
    assert row_limits.known == {}
    row_limits.layer("linear 8>8", 2).answer(three_rows_at_most, torch.zeros(6, 8))
    assert stored(tmp_path, XEON)[0] == row_limits.known != {}


def test_a_folder_that_cannot_be_written_keeps_nothing_and_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    row_limits = RowLimits(*stored(tmp_path, XEON), clock=lambda: 0.0)
    rows = torch.randn(6, 8)
    answer = row_limits.layer("linear 8>8", 2).answer(lambda rows: rows * 2, rows)
    assert torch.equal(answer, rows * 2)
    assert row_limits.known
