"""`farm logs`: what the parts of this machine's farm have written, each line behind the name of its part."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

from cli import terminal
from shared.errors import NotFound

_POLL_SECONDS: Final = 0.3


class LogFile:
    """One part's log, read on from the last position; a rotated file is read from its beginning."""

    def __init__(self, path: Path) -> None:
        self.part = path.name.removesuffix(".log")
        self._path = path
        self._position = 0
        self._rest = b""

    def new_lines(self) -> Iterator[str]:
        """Yield the whole lines that came since the last call."""
        data = self._new_bytes()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")

    def _new_bytes(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._position:
                    self._restart()
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:  # rotated, and its part has not begun another yet
            self._restart()
            return b""
        self._position += len(data)
        return data

    def _restart(self) -> None:
        self._position, self._rest = 0, b""


def show(folder: Path, parts: tuple[str, ...], *, lines: int, follow: bool, as_json: bool) -> None:
    """Print the last `lines` of each part's log (all parts when none is named), then what comes, if asked to follow.

    Raises NotFound when there is no such log.
    """
    files = [LogFile(path) for path in _paths(folder, parts)]
    width = max(len(file.part) for file in files)
    for turn in count():
        for file in files:
            for line in deque(file.new_lines(), maxlen=None if turn else lines):
                if as_json:
                    terminal.answer_json({"part": file.part, "line": line})
                else:
                    terminal.answer(f"{file.part:<{width}} │ {line}")
        if not follow:
            return
        time.sleep(_POLL_SECONDS)


def _paths(folder: Path, parts: tuple[str, ...]) -> list[Path]:
    there = {path.name.removesuffix(".log"): path for path in sorted(folder.glob("*.log"))}
    unknown = [part for part in parts if part not in there]
    if unknown or not there:
        known = f"There are logs of {', '.join(there)}." if there else "No farm has run in this FARM_HOME yet."
        raise NotFound(f"{folder} holds no log of {', '.join(unknown) or 'any part'}. {known}")
    return [there[part] for part in parts or there]
