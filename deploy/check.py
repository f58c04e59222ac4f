"""Check that the installed packages fit together, as `pip check`, apart from those that the farm does without.

`without` of pyproject.toml lists what packages ask for and the farm does not install. It is checked if it is installed.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Collection
from pathlib import Path


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"]
    checked = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    found = faults(checked.stdout, project["tool"]["lock"]["without"]) if checked.returncode else []
    if checked.returncode and (found or not checked.stdout):
        sys.exit("\n".join(found) or "pip cannot check the installed packages.")


def faults(output: str, without: Collection[str]) -> list[str]:
    """Return the lines of pip's output that name a fault."""
    expected = tuple(f" requires {name}, which is not installed." for name in without)
    return [line for line in output.splitlines() if not line.endswith(expected)]


if __name__ == "__main__":
    main()
