"""What workers measured of a processor's rounding, as it is kept: whole lines count, the rest is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared import portions
from shared.portions import Portion, Processor

XEON = Processor("Xeon", 2, "2.13")
EPYC = Processor("EPYC", 1, "2.13")


def test_each_processor_version_and_number_of_threads_has_a_file(tmp_path: Path) -> None:
    one = {
        portions.path(tmp_path, each) for each in (XEON, EPYC, Processor("Xeon", 1, "2.13"), Processor("Xeon", 2, "3"))
    }
    assert len(one) == 4
    assert portions.path(tmp_path, XEON) == portions.path(tmp_path, Processor("Xeon", 2, "2.13"))


def test_what_is_written_and_added_is_read(tmp_path: Path) -> None:
    file = portions.path(tmp_path, XEON)
    portions.write(file, XEON, {"a": Portion(4)})
    portions.add(file, "b", Portion(15, is_final=True, is_lone_alike=False))
    portions.add(file, "a", Portion(8, is_lone_alike=True))
    found = portions.read(file)
    assert found.processor == XEON
    assert found.portions == {"a": Portion(8, is_lone_alike=True), "b": Portion(15, is_final=True, is_lone_alike=False)}
    assert [one.processor for one in portions.kept(tmp_path)] == [XEON]


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
    file = portions.path(tmp_path, XEON)
    portions.write(file, XEON, {"before": Portion(4)})
    with file.open("a") as opened:
        opened.write(f"{line}\n")
    portions.add(file, "after", Portion(6))
    assert portions.read(file).portions == {"before": Portion(4), "after": Portion(6)}


def test_of_two_findings_the_more_careful_one_counts() -> None:
    assert Portion(8).and_also(Portion(5)) == Portion(8)
    assert Portion(8).and_also(Portion(5, is_final=True)) == Portion(5, is_final=True)
    assert Portion(8, is_final=True).and_also(Portion(5, is_final=True)) == Portion(5, is_final=True)
    assert Portion(2, is_lone_alike=True).and_also(Portion(2)) == Portion(2, is_lone_alike=True)
    assert Portion(2, is_lone_alike=True).and_also(Portion(2, is_lone_alike=False)) == Portion(2, is_lone_alike=False)
