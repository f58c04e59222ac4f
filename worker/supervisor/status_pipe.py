"""The pipe from a worker's process to its supervisor: lines of JSON, `{"worker": id}` and then `{"busy": stages}`."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from contextlib import suppress

from worker.supervisor.watchdog import Stage


class StatusWriter:
    """The worker's end. It never blocks, because a supervisor that is stopped must not stop its workers."""

    def __init__(self, pipe: int | None = None) -> None:
        self._pipe = pipe
        if pipe is not None:
            os.set_inheritable(pipe, False)
            os.set_blocking(pipe, False)

    @property
    def is_supervised(self) -> bool:
        """True while a supervisor reads from the pipe."""
        return self._pipe is not None

    def registered(self, worker_id: int) -> None:
        """Report the id of this worker's row, so that the supervisor can mark it dead if the process dies."""
        self._write({"worker": worker_id})

    def busy(self, stages: Collection[Stage]) -> bool:
        """Report everything that the process is busy with; return False if the pipe is full."""
        rows = [(stage.phase, stage.since, stage.limit_seconds) for stage in stages]
        return self._write({"busy": rows, "files": [stage.file for stage in stages]})

    def _write(self, message: object) -> bool:
        if self._pipe is None:
            return True
        try:
            os.write(self._pipe, json.dumps(message).encode() + b"\n")  # short lines: all of it or nothing
        except BlockingIOError:
            return False
        except BrokenPipeError:
            self._pipe = None
        return True


class StatusReader:
    """The supervisor's end: the latest status that one process has reported."""

    def __init__(self, pipe: int) -> None:
        os.set_blocking(pipe, False)  # a stray grandchild may still hold the other end
        self._pipe = pipe
        self._begun = b""
        self.worker_id: int | None = None
        self.stages: tuple[Stage, ...] = ()

    def read(self) -> None:
        """Take in all messages that have arrived."""
        with suppress(BlockingIOError):
            while chunk := os.read(self._pipe, 65536):
                *lines, self._begun = (self._begun + chunk).split(b"\n")
                for line in lines:
                    self._apply(json.loads(line))

    def close(self) -> None:
        os.close(self._pipe)

    def _apply(self, message: dict[str, object]) -> None:
        match message:
            case {"worker": int(worker_id)}:
                self.worker_id = worker_id
            case {"busy": list(rows)}:
                files = message.get("files")
                if not isinstance(files, list) or len(files) != len(rows):  # an older version: no file is blamed
                    files = [""] * len(rows)
                pairs = zip(rows, files, strict=True)
                self.stages = tuple(Stage(phase, since, limit, file) for (phase, since, limit), file in pairs)
