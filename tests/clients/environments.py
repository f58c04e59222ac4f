"""Other people's clients, each in an environment of its own, as their users install them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Client:
    """The newest version of a client's package; it is installed where it is made."""

    def __init__(self, package: str, folder: Path) -> None:
        self.package = package
        self._python = folder / package / "bin" / "python"
        if not self._python.exists():
            subprocess.run([sys.executable, "-m", "venv", folder / package], check=True)
            subprocess.run([self._python, "-m", "pip", "install", "--quiet", package], check=True)

    @property
    def version(self) -> str:
        asked = f"from importlib.metadata import version; print(version({self.package!r}))"
        return self._ran("-c", asked).strip()

    def calls(self, script: str, *arguments: str, given: str = "") -> dict[str, Any]:
        """Return what a script of this folder prints as JSON, run with the client; `given` is its standard input."""
        told: dict[str, Any] = json.loads(self._ran(str(HERE / script), *arguments, given=given))
        return told

    def _ran(self, *arguments: str, given: str = "") -> str:
        command = [self._python, *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout
