"""Inspects model files in a confined child: one child for all, and another one if a file ends it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from shared.confined.process import Confined, Limits
from shared.errors import Unreadable
from shared.models import scan
from shared.models.components import Place
from shared.models.inspection import Inspection
from shared.models.scan import Fingerprint
from shared.waiting.backoff import Backoff
from worker.render.inspector_question import PLACES

LIMITS: Final = Limits(
    memory_bytes=512 * 2**20,  # names and shapes of the largest checkpoints take a tenth of it
    cpu_seconds=60,  # 5 s on a slow machine
    seconds=300,  # a network's disk
    start_seconds=600,  # seconds of processor time for the imports, on a machine that is busy and from a cold disk
)
_TRIES: Final = 2  # the machine may have been short of memory when a child died
_FIRST_PAUSE_SECONDS: Final = 60.0  # until a file that could not be inspected is tried again; doubled each time
_LONGEST_PAUSE_SECONDS: Final = 3600.0


log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Failure:
    """Why a file could not be inspected, which may be the machine's fault, and when it is tried again."""

    error: OSError
    backoff: Backoff


class Inspector:
    """Tells what a model file is, even if it ends its reader. `close` ends the child; the next file starts another.

    An answer is remembered until the file changes, so a file that waits to be hashed is not inspected again.
    """

    def __init__(self, limits: Limits = LIMITS) -> None:
        self._child = Confined("worker.render.inspecting", limits)
        self._known: dict[Path, tuple[Fingerprint, Inspection | _Failure]] = {}

    def __call__(self, path: Path) -> Inspection:
        """Return what `path` is.

        Raises TimeoutError if its disk is too slow, and ChildProcessError if it ends its readers, which may be the
        machine's fault: such a file is tried again after a pause that grows. Raises NotConfined if no child could be
        started, OSError if the file is gone.
        """
        fingerprint = scan.fingerprint(path)
        before, found = self._known.get(path, (None, None))
        if found is None or before != fingerprint:
            found = self._inspected(path, Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS))
        elif isinstance(found, _Failure) and found.backoff.is_due:
            found = self._inspected(path, found.backoff)
        self._known[path] = fingerprint, found
        if isinstance(found, _Failure):
            raise found.error.with_traceback(None)  # else it would hold the frames of each time
        return found

    def _inspected(self, path: Path, backoff: Backoff) -> Inspection | _Failure:
        for _ in range(_TRIES):
            try:
                return Inspection(**json.loads(self._child.ask(os.fsencode(path))))
            except Unreadable as error:
                why = str(error)
                if error.limit == "time":
                    return _failure(TimeoutError(f"reading it was given up: {why}"), backoff)
                if error.limit:
                    return Inspection("checkpoint", reason=f"reading it was given up: {why}; replace the file")
        how = why.removeprefix("it ended its process ").strip("()")
        return _failure(ChildProcessError(f"reading it ended its process twice ({how})"), backoff)

    def places(self, path: Path) -> dict[str, Place]:
        """Return where the networks of a usable file lie in it, by their names; none if it cannot be read."""
        try:
            found = json.loads(self._child.ask(PLACES + os.fsencode(path)))
        except Unreadable as error:
            log.warning("networks not found in a model file", path=str(path), reason=str(error))
            return {}
        return {network: Place.of(place) for network, place in found.items()}

    def close(self) -> None:
        self._child.close()


def _failure(error: OSError, backoff: Backoff) -> _Failure:
    backoff.failed()
    return _Failure(error, backoff)
