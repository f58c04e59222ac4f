"""Files with measured rounding of a processor: whole lines count, others are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared import row_limit_files
from shared.row_limit_files import Processor, StoredLimit

XEON = Processor("Xeon", 2, "2.13")
EPYC = Processor("EPYC", 1, "2.13")


def test_each_processor_version_and_number_of_threads_has_a_file(tmp_path: Path) -> None:
    one = {
        row_limit_files.path(tmp_path, each)
        for each in (XEON, EPYC, Processor("Xeon", 1, "2.13"), Processor("Xeon", 2, "3"))
    }
    assert len(one) == 4
    assert row_limit_files.path(tmp_path, XEON) == row_limit_files.path(tmp_path, Processor("Xeon", 2, "2.13"))


def test_what_is_written_and_added_is_read(tmp_path: Path) -> None:
    file = row_limit_files.path(tmp_path, XEON)
    row_limit_files.write(file, XEON, {"a": StoredLimit(4)})
    row_limit_files.add(file, "b", StoredLimit(15, is_final=True, is_lone_alike=False))
    row_limit_files.add(file, "a", StoredLimit(8, is_lone_alike=True))
    found = row_limit_files.read(file)
    assert found.processor == XEON
    assert found.limits == {
        "a": StoredLimit(8, is_lone_alike=True),
        "b": StoredLimit(15, is_final=True, is_lone_alike=False),
    }
    assert [one.processor for one in row_limit_files.all_at(tmp_path)] == [XEON]


@pytest.mark.parametrize(
    "line",
    [
        "", "{", "7", '{"shape": "a"}', '{"shape": "a", "rows": 0, "is_final": false, "is_lone_alike": null}',
        '{"shape": "a", "rows": "8", "is_final": false, "is_lone_alike": null}',
        '{"shape": "a", "rows": 1e9, "is_final": false, "is_lone_alike": null}',
        '{"shape": "a", "rows": 99999999, "is_final": false, "is_lone_alike": null}',
        '{"shape": "a", "rows": 8, "is_final": 1, "is_lone_alike": null}',
        '{"shape": "a", "rows": 8, "is_final": false, "is_lone_alike": "yes"}',
    ],
)  # fmt: skip
def test_a_damaged_line_takes_no_other_with_it(tmp_path: Path, line: str) -> None:
    file = row_limit_files.path(tmp_path, XEON)
    row_limit_files.write(file, XEON, {"before": StoredLimit(4)})
    with file.open("a") as opened:
        opened.write(f"{line}\n")
    row_limit_files.add(file, "after", StoredLimit(6))
    assert row_limit_files.read(file).limits == {"before": StoredLimit(4), "after": StoredLimit(6)}


def test_of_two_findings_the_more_careful_one_counts() -> None:
    assert StoredLimit(8).merged(StoredLimit(5)) == StoredLimit(8)
    assert StoredLimit(8).merged(StoredLimit(5, is_final=True)) == StoredLimit(5, is_final=True)
    assert StoredLimit(8, is_final=True).merged(StoredLimit(5, is_final=True)) == StoredLimit(5, is_final=True)
    assert StoredLimit(2, is_lone_alike=True).merged(StoredLimit(2)) == StoredLimit(2, is_lone_alike=True)
    assert StoredLimit(2, is_lone_alike=True).merged(StoredLimit(2, is_lone_alike=False)) == StoredLimit(
        2, is_lone_alike=False
    )
