"""`main`: a process that has imported the farm and starts others by forking itself.

A start of the API or of a worker is imports for nine tenths of its time. A process started so is like any other:
with its own id, group, environment, streams and command line, run from its real `__main__`. A supervisor that was
started so forks its workers off itself. Orders come through a socket; when that closes, all that was started is killed.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

MODULES = ("api.serve", "worker.__main__", "worker.process", "worker.maintenance.process", "tests.support.stub_card")
"""What every process that is started finds imported."""

_PR_SET_PDEATHSIG = 1
_MOST_FILES = 2**16


class Forked:
    """As much of a `Popen` as a supervisor uses."""

    def __init__(
        self, command: Sequence[str], *, pass_fds: Sequence[int], process_group: int, env: Mapping[str, str]
    ) -> None:
        assert process_group == 0
        assert [*command[:2]] == [sys.executable, "-m"]
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            _become(command[2:], env, keep=pass_fds)

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _status(self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def main() -> None:
    """Start what is asked for and report its end, until nobody can ask any more."""
    orders = socket.socket(fileno=int(sys.argv[1]))
    for module in (*MODULES, *sys.argv[2].split()):
        importlib.import_module(module)
    gc.freeze()  # these objects are shared with every process that is started
    while (order := socket.recv_fds(orders, 2**20, 16))[0]:
        asked = json.loads(order[0])
        answer = _status(asked["pid"]) if "pid" in asked else _start(orders, order[1], **asked)
        for file in order[1]:
            os.close(file)
        orders.send(json.dumps(answer).encode())


def _start(orders: socket.socket, files: Sequence[int], command: list[str], env: dict[str, str], fds: list[int]) -> int:
    """Return the id of a new process that has `files` under the numbers `fds`."""
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        orders.close()
        _be_child(parent, files, fds)
        _become(command, env, keep=fds)
    return pid


def _be_child(parent: int, files: Sequence[int], fds: Sequence[int]) -> None:
    """Die with the parent, lead a group, and have the files under their numbers."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    above = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, max(fds) + 1) for file in files]
    for file, number in zip(above, fds, strict=True):
        os.dup2(file, number)


def _become(command: Sequence[str], env: Mapping[str, str], *, keep: Iterable[int]) -> NoReturn:
    """Run `python -m command` in this process, with no other files than the first three and those to keep. Ends it."""
    status = 1
    try:
        for before, after in pairwise([*sorted({0, 1, 2, *keep}), _MOST_FILES]):
            os.closerange(before + 1, after)
        _forget_signals()
        os.environ.clear()
        os.environ.update(env)
        _show([sys.executable, "-m", *command])
        sys.modules["worker.supervisor.child"].subprocess = SimpleNamespace(Popen=Forked)  # type: ignore[attr-defined]
        sys.argv = [*command]
        for name in (command[0], f"{command[0]}.__main__"):  # it is run again, as `__main__`
            if name in sys.modules and not hasattr(sys.modules[name], "__path__"):
                del sys.modules[name]
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _forget_signals() -> None:
    """Handle signals as a new process does."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _show(command: Sequence[str]) -> None:
    """Have `ps` and /proc show this command: it is written over the one of the process that was forked."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    shown = "\0".join(command).encode()[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, shown, len(shown))


def _status(pid: int) -> int | None:
    """Return the exit status of a child as `Popen` does, None while it runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None
