"""Looks into model files in a confined child: one child for all of them, and another one where a file ends it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from shared import scan
from shared.catalogue import Inspection
from shared.confined.process import Confined, Limits
from shared.errors import Unreadable
from shared.scan import Fingerprint

LIMITS: Final = Limits(
    memory_bytes=512 * 2**20,  # names and shapes of the largest checkpoints take a tenth of it
    cpu_seconds=60,  # 5 s on a slow machine
    seconds=300,  # a network's disk
)
_TRIES: Final = 2  # the machine may have been short of memory when a child died


class Inspector:
    """Tells what a model file is, whatever it does to its reader. `close` ends the child; the next file starts another.

    What was found is known as long as the file stays as it is: one that waits to be hashed is not looked into again.
    """

    def __init__(self, limits: Limits = LIMITS) -> None:
        self._child = Confined("worker.inspecting", limits)
        self._known: dict[Path, tuple[Fingerprint, Inspection]] = {}

    def __call__(self, path: Path) -> Inspection:
        """Return what `path` is. Raises NotConfined where no child could be started, OSError where it is gone."""
        fingerprint = scan.fingerprint(path)
        if path not in self._known or self._known[path][0] != fingerprint:
            self._known[path] = fingerprint, self._asked(path)
        return self._known[path][1]

    def _asked(self, path: Path) -> Inspection:
        for _ in range(_TRIES):
            try:
                return Inspection(**json.loads(self._child.ask(os.fsencode(path))))
            except Unreadable as error:
                why = str(error)
                if error.limit:
                    return _struck(f"reading it was given up: {why}")
        return _struck(f"reading it ended its process twice ({why.removeprefix('it ended its process ').strip('()')})")

    def close(self) -> None:
        self._child.close()


def _struck(why: str) -> Inspection:
    return Inspection("checkpoint", reason=f"{why}; replace the file")
