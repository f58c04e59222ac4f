"""A pretended nvidia-smi."""

from __future__ import annotations

from pathlib import Path

import pytest


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, query: str = "", listed: str = "", status: int = 0) -> None:
    """Put an nvidia-smi on PATH that answers the query and `-L` so; the file `asked` has a line for each time."""
    (folder / "query").write_text(query)
    (folder / "list").write_text(listed)
    program = folder / "nvidia-smi"
    answer = f"case $1 in -L) cat {folder}/list;; *) cat {folder}/query;; esac"
    program.write_text(f"#!/bin/sh\necho asked >>{folder}/asked\n{answer}\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
