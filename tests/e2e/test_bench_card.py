"""The acceptance run of a card, rehearsed on a pretended one: a typo in it would cost minutes of a real one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.card.measures import ENDING
from bench.card.parts import PARTS
from tests.support import pretended_card

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = "170"  # for each part, on a machine that does much else

pytestmark = pytest.mark.skipif(bool(pretended_card.reason_not_to()), reason=pretended_card.reason_not_to())


class Run(NamedTuple):
    status: int
    printed: str
    measures: list[dict[str, Any]]


def rehearse(folder: Path) -> Run:
    command = [sys.executable, "-m", "bench.card", "--pretend", "--out", str(folder), "--limit", PATIENCE_SECONDS]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    return Run(ended.returncode, ended.stdout, json.loads((folder / "card.json").read_text())["measures"])


@pytest.mark.nightly
def test_the_whole_run_can_be_rehearsed_without_a_card(tmp_path: Path) -> None:
    run = rehearse(tmp_path)
    assert run.status == 0, run.printed
    assert {measure["part"] for measure in run.measures} == set(range(len(PARTS)))
    assert [measure for measure in run.measures if measure["name"] == ENDING] == []
    assert "FAIL" not in run.printed
    assert len([measure for measure in run.measures if measure["is_ok"]]) >= 30
    (hung,) = (measure["value"] for measure in run.measures if measure["name"] == "hang, ended after")
    names = {measure["name"] for measure in run.measures}
    assert {
        f"steps beside {what}, longest" for what in ("a load", "an eviction", "a copy for the host's memory")
    } <= names
    assert hung > 0.5  # its limit is of a second or two
    table = run.printed.partition("| part")[2].partition("\n\nfigures:")[0].splitlines()[2:]
    assert len(table) == len(run.measures)
    assert (tmp_path / "card.md").read_text().splitlines()[2:] == table
