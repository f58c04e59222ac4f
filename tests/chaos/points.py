"""Crash points: named places between two effects, where a process of the harness can be killed as by kill -9.

The product does not know them: the harness wraps functions of the product in its own processes. A point is armed
by a file of its name; the first process that passes it removes the file and dies.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import cache, partial, wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import Engine, event

from shared.db import sessions
from shared.maintenance import outbox
from shared.media import synced_files
from shared.media.storage import Storage
from shared.queue import claim, dependencies, reaper, transitions, workers
from shared.webhooks import sending
from worker.progress.reporter import ImageProgress

POINTS = (
    "claim.inside",  # the statement is on its way, or has just come back
    "claim.committed",  # committed, the slot does not know yet
    "run.begun",
    "run.step",  # between two steps
    "run.ended",  # rendered, nothing stored
    "put.half",  # a file is written, but not yet under its name
    "put.stored",  # one of the image's files is stored
    "finish.inside",  # as the claim's
    "finish.committed",  # committed, nobody knows yet
    "heartbeat.inside",
    "heartbeat.committed",
    "mark_dead.inside",  # the supervisor, which gives a dead child's images back
    "mark_dead.committed",
    "reap.inside",  # a worker, which gives a silent one's images back
    "reap.committed",
    "deliver.inside",  # an event is taken out of the outbox, and not delivered yet
    "deliver.ended",  # delivered, and not marked as such
    "release.inside",  # a job that waited for another is released
    "release.committed",  # released, and no message of it has been sent
    "send.ended",  # a webhook has arrived, and is not marked as such
)

ANSWER_SECONDS = 1.0  # that a receiver of webhooks may take: a plan cannot wait for ten
_ON_ITS_WAY_SECONDS = 0.002

FULL = "the storage is full"
"""The file that fills the storage for as long as it is there."""

READ_ONLY = "the storage is read-only"
"""The file that makes the storage read-only for as long as it is there."""


class Folder:
    """What the harness and its processes tell each other: what is armed, what was hit, and who sends webhooks."""

    def __init__(self, folder: Path) -> None:
        self._armed, self._hit, self._senders = folder / "armed", folder / "hit", folder / "senders"

    def make(self) -> None:
        for folder in (self._armed, self._hit, self._senders):
            folder.mkdir(parents=True)

    def arm(self, name: str) -> None:
        (self._armed / name).touch()

    def disarm(self, name: str) -> None:
        (self._armed / name).unlink(missing_ok=True)

    def is_armed(self, name: str) -> bool:
        return (self._armed / name).exists()

    def hits(self) -> dict[str, int]:
        """Return the points where a process died, each with the process."""
        found = [path.name.rpartition("@") for path in self._hit.iterdir()]
        return {point: int(pid) for point, _, pid in found}

    def sends(self) -> None:
        """Say that this process sends webhooks from now on."""
        (self._senders / str(os.getpid())).touch()

    def is_sender(self, pid: int | None) -> bool:
        return (self._senders / str(pid)).exists()

    def passed(self, point: str) -> None:
        """Die if `point` is armed and nobody else has died of it."""
        try:
            (self._armed / point).rename(self._hit / f"{point}@{os.getpid()}")
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


class _Move(threading.local):
    """The move that this thread's transaction has made, to be committed, and the one whose statement it sends."""

    name = ""
    sends = ""


@cache
def install(folder: Path) -> Folder:
    """Wrap what this process has imported of the product; workers that a supervisor forks off itself have it then."""
    points = Folder(folder)
    _install(points)
    return points


def _install(folder: Folder) -> None:
    move = _Move()
    _replace(sessions.transact, partial(_transact, folder, move))
    for original, name in ((claim.claim, "claim"), (transitions.finish_all, "finish")):
        _replace(original, partial(_statement, move, name))
    event.listen(Engine, "before_cursor_execute", lambda *_: _send(folder, move))
    for original, name in (
        (workers.heartbeat, "heartbeat"),
        (reaper.mark_dead, "mark_dead"),
        (reaper.reap, "reap"),
    ):
        _replace(original, partial(_move, folder, move, name))
    _install_in_worker(folder)
    _install_in_chores(folder, move)


def _install_in_worker(folder: Folder) -> None:
    put, step, fsync, write = Storage.put, ImageProgress.step, os.fsync, synced_files.write

    def put_and_pass(storage: Storage, key: str, data: bytes) -> None:
        put(storage, key, data)
        folder.passed("put.stored")

    def step_and_pass(watch: ImageProgress, *arguments: Any) -> None:
        step(watch, *arguments)
        folder.passed("run.step")

    def pass_and_sync(descriptor: int) -> None:
        folder.passed("put.half")
        if folder.is_armed(FULL):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    def write_unless_locked(root: int, name: str, data: bytes) -> None:
        if folder.is_armed(READ_ONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        write(root, name, data)

    Storage.put, ImageProgress.step, os.fsync = put_and_pass, step_and_pass, pass_and_sync
    synced_files.write = write_unless_locked


def _install_in_chores(folder: Folder, move: _Move) -> None:
    _replace(outbox.hand_out, partial(_hand_out, folder))
    _replace(dependencies.settle, partial(_release, folder, move))
    _replace(sending.send, partial(_send_message, folder))


def _hand_out(folder: Folder, original: Callable[..., Any], *arguments: Any) -> Any:
    folder.passed("deliver.inside")
    answer = original(*arguments)
    folder.passed("deliver.ended")
    return answer


def _release(folder: Folder, move: _Move, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    settled = original(*arguments, **named)
    if settled.queued:
        folder.passed("release.inside")
        move.name = "release"
    return settled


def _send_message(folder: Folder, original: Callable[..., Any], *arguments: Any) -> Any:
    failure = original(*arguments, seconds=ANSWER_SECONDS)
    if failure is None:
        folder.passed("send.ended")
    return failure


def _transact(folder: Folder, move: _Move, original: Callable[..., Any], *arguments: Any) -> Any:
    move.name = ""
    answer = original(*arguments)
    if move.name:
        folder.passed(f"{move.name}.committed")
    return answer


def _statement(move: _Move, name: str, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Make a move that is one statement, which commits itself."""
    move.sends = name
    try:
        answer = original(*arguments, **named)
    finally:
        move.sends = ""
    move.name = name if answer else ""
    return answer


def _send(folder: Folder, move: _Move) -> None:
    """Die a moment after the statement has left, if that is meant."""
    if move.sends and folder.is_armed(point := f"{move.sends}.inside"):
        threading.Timer(random.uniform(0, _ON_ITS_WAY_SECONDS), folder.passed, [point]).start()


def _move(folder: Folder, move: _Move, name: str, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    answer = original(*arguments, **named)
    if answer is not None and answer != []:  # something was claimed or ended, or a worker was renewed or declared dead
        folder.passed(f"{name}.inside")
        move.name = name
    return answer


def _replace(original: Callable[..., Any], wrapper: Callable[..., Any]) -> None:
    """Put `wrapper` in the place of `original` in every module of the farm that has it by any name."""
    wrapped = wraps(original)(partial(wrapper, original))
    for module in [module for name, module in sys.modules.items() if name.startswith(("shared.", "worker."))]:
        _replace_in(module, original, wrapped)


def _replace_in(module: ModuleType, original: object, wrapped: object) -> None:
    for name in [name for name, value in vars(module).items() if value is original]:
        setattr(module, name, wrapped)
