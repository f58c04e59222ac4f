"""`.ci/run` with a `make` that only says what it was asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / ".ci" / "run"
MAKE = """#!/bin/sh
echo "made $1"
case $1 in
test) sleep 0.1; exit "$TEST" ;;
lint) exit "$LINT" ;;
esac
"""


@pytest.mark.parametrize(("test", "lint", "status"), [(0, 0, 0), (3, 0, 3), (0, 5, 5), (3, 5, 3)])
def test_the_first_failure_is_the_status_and_everything_is_said(tmp_path: Path, test: int, lint: int, status: int):
    (tmp_path / "clone" / ".ci").mkdir(parents=True)
    run = shutil.copy(RUN, tmp_path / "clone" / ".ci")
    (tmp_path / "make").write_text(MAKE)
    (tmp_path / "make").chmod(0o755)
    environ = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path / "clone"),
        "FARM_TEST_BROWSER": "any",
        "TEST": str(test),
        "LINT": str(lint),
    }
    ran = subprocess.run([run], env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == status
    assert ran.stdout.splitlines() == ["made venv", "made test", "made lint"]
    assert [path.name for path in (tmp_path / "clone").iterdir()] == [".ci"], "what was said lies about"
