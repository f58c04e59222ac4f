"""A whole farm as a person starts it: `farm up` in a process of its own, with everything real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
FARM = (sys.executable, "-m", "cli")
START_SECONDS = 120  # on a machine that does much else


def run(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a `farm` command to its end."""
    return subprocess.run(
        [*FARM, *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=150, check=False
    )


def start(environ: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start a `farm` command as the leader of a group of its own, as a terminal does."""
    return subprocess.Popen(
        [*FARM, *arguments], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True, process_group=0
    )


@dataclass
class Up:
    """A farm that is up."""

    process: subprocess.Popen[str]
    url: str

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Press Ctrl-C in its terminal (or send another signal) and return its exit status."""
        os.killpg(self.process.pid, number)
        return self.process.wait(100)


@contextmanager
def up(environ: Mapping[str, str]) -> Iterator[Up]:
    """Yield a farm once it says that it is up; killed at the end of the block if it still runs."""
    process = start(environ, "up", "--json")
    assert process.stdout
    try:
        yield Up(process, json.loads(process.stdout.readline())["url"])
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def family(pid: int) -> dict[int, str]:
    """Return the living descendants of a process by their ids, each with its command."""
    parents = {child: (parent, command) for child, parent, command in _processes()}
    found = {pid: ""}
    while more := {
        child: command for child, (parent, command) in parents.items() if parent in found and child not in found
    }:
        found |= more
    del found[pid]
    return found


def gone(pids: Mapping[int, str]) -> bool:
    """True when none of these processes is left."""
    return not {pid for pid, _, _ in _processes()} & pids.keys()


def await_end(pids: Mapping[int, str]) -> None:
    """Wait until none of these processes is left."""
    until(lambda: gone(pids), 30, f"the end of {pids}")


def _processes() -> Iterator[tuple[int, int, str]]:
    """Yield id, parent and name of every process that is not a zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = stat.read_text().rpartition(")")
        except OSError:  # it ended meanwhile
            continue
        state, parent = rest.split()[:2]
        if state != "Z":
            yield int(stat.parent.name), int(parent), head.partition("(")[2]
