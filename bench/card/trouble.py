"""Part 8: a hang, a lost card, a kill, a card that is full, and a network that refuses: each in processes of its own.

This process computes nothing itself, so that its children can be forked from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

from bench.card import children, faults
from bench.card.bench import Bench
from worker.supervisor.child import HUNG, LOST

Work = Callable[..., object]
WAIT_SECONDS: Final = 30.0


class Process:
    """A process that does one of the troubles, and what it says."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process, self._pipe = process, pipe

    def said(self, bench: Bench) -> Any:  # noqa: ANN401 - whatever it sends
        """Return its next message; None if it ends, or the time does, before it sends one."""
        with suppress(EOFError):
            if self._pipe.poll(min(WAIT_SECONDS, max(0.0, bench.seconds_left))):
                return self._pipe.recv()
        return None

    def status(self, bench: Bench) -> int | None:
        """Return its exit status; None if it does not end."""
        self.process.join(min(WAIT_SECONDS, max(0.0, bench.seconds_left)))
        return self.process.exitcode


def run(bench: Bench) -> None:
    """Run the troubles that can share a card at once, then the one that needs the card alone."""
    with ExitStack() as stack:
        hung, lost, refused, killed = (
            _started(bench, stack, work) for work in (faults.hang, faults.lose, faults.refuse, faults.go_on)
        )
        bench.now("a process is killed in a step")
        _killed(bench, killed, stack)
        bench.now("a network refuses calls of many rows")
        _refused(bench, refused.said(bench))
        bench.now("a card is lost")
        _lost(bench, lost)
        bench.now("a call hangs")
        _hung(bench, hung)
    bench.now("a card is full")
    with ExitStack() as stack:
        _full(bench, _started(bench, stack, faults.fill).said(bench))


def _started(bench: Bench, stack: ExitStack, work: Work) -> Process:
    return Process(*stack.enter_context(children.helper(bench, work)))


def _killed(bench: Bench, killed: Process, stack: ExitStack) -> None:
    """After kill -9 in the middle of a step a new process has the card at once."""
    is_in_step = killed.said(bench)
    killed.process.kill()
    begun = time.monotonic()
    picture = _started(bench, stack, faults.paint).said(bench)
    bench.check("killed in a step, a new process renders", bool(is_in_step and picture), _cut(picture), "a picture")
    bench.note("killed in a step, until a picture", time.monotonic() - begun, "s")


def _refused(bench: Bench, said: dict[str, Any] | None) -> None:
    """Pictures come out row by row, and not in silence."""
    said = said or {"pictures": 0, "counted": 0, "logged": 0}
    bench.check(
        "refused, pictures that come out",
        said["pictures"] == faults.REFUSED,
        str(said["pictures"]),
        str(faults.REFUSED),
    )
    bench.check("refused, counted", said["counted"] > 0, str(said["counted"]), "1 or more")
    bench.check("refused, logged", said["logged"] > 0, str(said["logged"]), "1 or more")


def _lost(bench: Bench, lost: Process) -> None:
    """An index out of bounds leaves the card unusable: the engine ends, says so, and the process with it."""
    said = lost.said(bench)
    is_reported = bool(said) and not said["is_running"] and "card was lost" in said["error"]
    bench.check("lost card, reported", is_reported, _cut(said and said["error"]), "the card was lost")
    status = lost.status(bench)
    bench.check("lost card, exit status", status == LOST, str(status), str(LOST))


def _hung(bench: Bench, hung: Process) -> None:
    """A call that outlasts its limit ends the process."""
    seconds = hung.said(bench)
    status = hung.status(bench)
    bench.check("hang, exit status", status == HUNG, str(status), str(HUNG))
    if seconds is not None:
        bench.note("hang, ended after", seconds, "s")


def _full(bench: Bench, said: dict[str, Any] | None) -> None:
    """Memory that runs out, in the allocator and outside of it, fails a picture and no card."""
    for where in faults.FULL:
        found = said[where] if said else {"error": "", "is_running": False, "picture": ""}
        is_right = found["is_running"] and found["error"] == "OutOfMemory"
        bench.check(f"{where}, the picture's error", is_right, _cut(found["error"]), "OutOfMemory, and the engine runs")
        bench.check(f"{where}, with room again", bool(found["picture"]), _cut(found["picture"]), "a picture")


def _cut(said: str | None) -> str:
    return " ".join(said.split())[:80] if said else "nothing"
