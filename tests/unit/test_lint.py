"""The house rules that a machine can check in seconds; `make lint` checks the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "command",
    [
        ("lint-imports", "--no-cache", "--no-logo"),
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        pytest.param(("python", "tools/prose.py"), marks=pytest.mark.nightly),  # of seconds, and in `make lint`
    ],
    ids=["import contracts", "style", "format", "wording"],
)
def test_house_is_in_order(command: tuple[str, ...]):
    checked = run(*command)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in (ROOT / "tests").rglob("test_*.py")}), ids=lambda folder: folder.name
)
def test_folder_of_tests_is_a_package(folder: Path):
    """A folder tests/api without __init__.py would shadow api/."""
    assert (folder / "__init__.py").exists()


def test_only_one_module_asks_about_devices_and_another_one_waits_for_them():
    asking = [path for path in (ROOT / "worker").rglob("*.py") if "torch.cuda." in path.read_text(encoding="utf-8")]
    assert {path.name for path in asking} == {"devices.py", "transfers.py"}


@pytest.mark.parametrize("package", ["api", "cli", "client", "shared", "worker"])
def test_no_package_speaks_for_its_modules(package: str):
    speaking = [path for path in (ROOT / package).rglob("__init__.py") if path.read_text(encoding="utf-8").strip()]
    assert speaking == []
