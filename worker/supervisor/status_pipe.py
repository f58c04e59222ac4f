"""The pipe from a worker's process to its supervisor: lines of JSON: `{"worker": id}`, then what it is busy with."""

from __future__ import annotations

import json
import os
from collections.abc import Collection

from worker.supervisor.watchdog import Stage


class Report:
    """The worker's end. Nothing here waits: a supervisor that is stopped must not stop its workers."""

    def __init__(self, pipe: int | None = None) -> None:
        self._pipe = pipe
        if pipe is not None:
            os.set_inheritable(pipe, False)
            os.set_blocking(pipe, False)

    @property
    def is_heard(self) -> bool:
        """True while a supervisor watches this process."""
        return self._pipe is not None

    def registered(self, worker_id: int) -> None:
        """Tell whose row to remove if this process dies."""
        self._write({"worker": worker_id})

    def busy(self, stages: Collection[Stage]) -> bool:
        """Tell all that the process is busy with; False where the pipe is full."""
        told = [(stage.phase, stage.since, stage.limit_seconds) for stage in stages]
        return self._write({"busy": told, "files": [stage.file for stage in stages]})

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


class Hearing:
    """The supervisor's end: the latest that one process has said of itself."""

    def __init__(self, pipe: int) -> None:
        os.set_blocking(pipe, False)  # a stray grandchild may still hold the other end
        self._pipe = pipe
        self._begun = b""
        self.worker_id: int | None = None
        self.stages: tuple[Stage, ...] = ()

    def hear(self) -> None:
        """Take in what has come."""
        while said := self._read():
            *lines, self._begun = (self._begun + said).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def close(self) -> None:
        os.close(self._pipe)

    def _read(self) -> bytes:
        try:
            return os.read(self._pipe, 65536)
        except BlockingIOError:
            return b""

    def _take(self, message: dict[str, object]) -> None:
        match message:
            case {"worker": int(worker_id)}:
                self.worker_id = worker_id
            case {"busy": list(stages)}:
                files = message.get("files")
                if not isinstance(files, list) or len(files) != len(stages):  # of an older version: no file is blamed
                    files = [""] * len(stages)
                told = zip(stages, files, strict=True)
                self.stages = tuple(Stage(phase, since, limit, file) for (phase, since, limit), file in told)
