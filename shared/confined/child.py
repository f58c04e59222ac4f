"""`python -m shared.confined.child MODULE LIFE LIMITS`: the child's side of `shared.confined.process`."""

from __future__ import annotations

import fcntl
import importlib
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.confined.process import ANSWER, FAILED, MEMORY, SIZE, Limits

_ENDLESS = resource.RLIM_INFINITY
_FILES = 256


def main(module: str, life: str, limits: str) -> None:
    """Answer questions until the pipe closes."""
    _end_with_parent(int(life))
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # keeps what a library prints out of the answers
    _confine()
    bounds = Limits(**json.loads(limits))
    answer: Callable[[bytes], bytes] | None = None
    while head := questions.read(SIZE.size):
        question = questions.read(SIZE.unpack(head)[0])
        if answer is None:  # the first question waits for the imports, which no limit counts
            kind, content = _tried(lambda: _imported(module))
            answer = importlib.import_module(module).answer if kind == ANSWER else None
        else:
            kind, content = _tried(lambda: _bounded(answer, question, bounds))  # noqa: B023 - called at once
        unsent = memoryview(kind + SIZE.pack(len(content)) + content)
        while unsent:
            unsent = unsent[answers.write(unsent) :]


def _imported(module: str) -> bytes:
    importlib.import_module(module)
    return b""


def _end_with_parent(life: int) -> None:
    """Have the kernel end this process when the other end of the pipe `life` closes, also while it is busy."""
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        if not os.read(life, 1):  # it was closed before
            os._exit(0)


def _confine() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    with suppress(OSError):  # if the whole machine runs out of memory, the child goes first
        Path("/proc/self/oom_score_adj").write_text("1000")


def _bounded(answer: Callable[[bytes], bytes], question: bytes, limits: Limits) -> bytes:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + limits.cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, _ENDLESS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # not earlier: libraries try the folder for temporary files
    with _memory(limits.memory_bytes):
        return answer(question)


@contextmanager
def _memory(size_bytes: int) -> Iterator[None]:
    """Limit the private memory of the process within the block; afterwards it needs room to report a failure."""
    status = Path("/proc/self/status").read_text()
    used_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * used_kib + size_bytes, _ENDLESS))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (_ENDLESS, _ENDLESS))


def _tried(operation: Callable[[], bytes]) -> tuple[bytes, bytes]:
    try:
        return ANSWER, operation()
    except MemoryError:
        return MEMORY, b""
    except Exception as error:  # noqa: BLE001 - the edge of the process: the parent reports it
        return FAILED, f"{type(error).__name__}: {error}"[:500].encode(errors="replace")


if __name__ == "__main__":
    main(*sys.argv[1:])
