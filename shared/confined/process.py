"""Foreign bytes are read in a child process of its own: what is wrong with them ends the child, and nothing else.

The child sees none of the farm's environment, so none of its secrets, writes no file, and may take so much memory, so
much processor time and so long for each question. It ends when its parent does, however that ends.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import IO, Final, Literal, NoReturn, Self, cast

from shared.errors import NotConfined, Unreadable
from shared.quantities import data_size

Limit = Literal["memory", "processor", "time", "answer"]

ANSWER, MEMORY, FAILED = b"a", b"m", b"f"
"""How an answer begins: what was asked for, that memory ran out, or why the child's own code failed."""
SIZE: Final = struct.Struct("<Q")  # stands before each question, and behind the first letter of each answer

_PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR")  # what an interpreter needs to find its libraries
_ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
_CHUNK: Final = 2**16
_KILLED_SECONDS: Final = 5.0  # a process that waits for a dead disk cannot be ended: then nobody waits for it


@dataclass(frozen=True)
class Limits:
    """What a child may take for one question."""

    memory_bytes: int  # beyond what it has once its module is imported; mapped files do not count
    cpu_seconds: int  # of all its threads together
    seconds: float  # until it has answered
    answer_bytes: int = 2**20
    start_seconds: float = 120.0  # to import its module, from a cold disk; asked of nobody's input


class Confined:
    """A child that has imported `module` and answers questions with the module's `answer(question: bytes) -> bytes`.

    It starts with the first question. What ends or exhausts it is told as Unreadable, and the next question starts
    another child. One thread at a time may ask.
    """

    def __init__(self, module: str, limits: Limits) -> None:
        self._module = module
        self._limits = limits
        self._child: subprocess.Popen[bytes] | None = None
        self._life = -1  # the child ends when this end of its pipe closes, which the kernel does for the dead

    def ask(self, question: bytes) -> bytes:
        """Return the child's answer. Raises Unreadable, which says what was exceeded; NotConfined without a child."""
        if self._child and self._child.poll() is not None:  # it was ended while it had nothing to do
            self.close()
        child = self._child or self._started()
        try:
            kind, answer = self._exchange(child, question, self._limits.seconds)
        except BaseException:
            self.close()
            raise
        if kind == ANSWER:
            return answer
        self.close()
        if kind == MEMORY:
            _exceed("memory", self._limits)
        raise Unreadable(f"it cannot be read ({answer.decode(errors='replace')})")

    def close(self) -> None:
        """End the child and whatever it started."""
        child, self._child = self._child, None
        if child is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_KILLED_SECONDS)
        os.close(self._life)
        for pipe in (child.stdin, child.stdout):
            with suppress(OSError):  # what it was not told any more
                cast("IO[bytes]", pipe).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _started(self) -> subprocess.Popen[bytes]:
        try:
            self._child = self._spawn()
        except OSError as error:
            raise NotConfined(f"no process could be started to read with: {error}") from error
        try:
            kind, told = self._exchange(self._child, b"", self._limits.start_seconds)
        except Unreadable as error:
            kind, told = FAILED, str(error).encode()
        if kind != ANSWER:
            self.close()
            raise NotConfined(f"the process to read with did not start: {told.decode(errors='replace')}")
        return self._child

    def _spawn(self) -> subprocess.Popen[bytes]:
        theirs, self._life = os.pipe()
        limits = json.dumps(asdict(self._limits))
        command = [sys.executable, "-I", "-m", "shared.confined.child", self._module, str(theirs), limits]
        try:
            return subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # libraries repeat there what a file says
                bufsize=0,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _ENVIRONMENT,
                pass_fds=(theirs,),
                process_group=0,
            )
        except OSError:
            os.close(self._life)
            raise
        finally:
            os.close(theirs)

    def _exchange(self, child: subprocess.Popen[bytes], question: bytes, seconds: float) -> tuple[bytes, bytes]:
        """Return what came back: how it begins, and the rest."""
        deadline = time.monotonic() + seconds
        unsent, came = [memoryview(SIZE.pack(len(question))), memoryview(question)], bytearray()
        stdin, stdout = cast("IO[bytes]", child.stdin).fileno(), cast("IO[bytes]", child.stdout).fileno()
        os.set_blocking(stdin, False)
        with selectors.DefaultSelector() as selector:
            selector.register(stdin, selectors.EVENT_WRITE)
            selector.register(stdout, selectors.EVENT_READ)
            while not _is_whole(came):
                for ready, _ in selector.select(max(0.0, deadline - time.monotonic())):
                    if ready.fd == stdout:
                        came += os.read(stdout, _CHUNK) or self._explain(child)
                    elif not (unsent := _sent(stdin, unsent)):
                        selector.unregister(stdin)
                if len(came) > self._limits.answer_bytes + SIZE.size + 1:
                    _exceed("answer", self._limits)
                if time.monotonic() >= deadline:
                    _exceed("time", self._limits, seconds)
        return bytes(came[:1]), bytes(memoryview(came)[SIZE.size + 1 :])

    def _explain(self, child: subprocess.Popen[bytes]) -> NoReturn:
        """Say why the child is gone."""
        with suppress(subprocess.TimeoutExpired):
            child.wait(_KILLED_SECONDS)
        status = child.returncode or 0
        if status == -signal.SIGXCPU:
            _exceed("processor", self._limits)
        raise Unreadable(f"it ended its process ({signal.Signals(-status).name if status < 0 else f'status {status}'})")


def _sent(pipe: int, unsent: list[memoryview]) -> list[memoryview]:
    """Send what the pipe takes, and return the rest; none where nobody reads any more, which the other pipe tells."""
    first, *others = unsent
    try:
        rest = first[os.write(pipe, first[:_CHUNK]) :]
    except BrokenPipeError:
        return []
    return [rest, *others] if rest else [one for one in others if one]


def _is_whole(came: bytearray) -> bool:
    head = SIZE.size + 1
    return len(came) >= head and len(came) - head >= SIZE.unpack_from(came, 1)[0]


def _exceed(limit: Limit, limits: Limits, seconds: float | None = None) -> NoReturn:
    told: dict[Limit, str] = {
        "memory": f"it takes more than {data_size(limits.memory_bytes)} of memory",
        "processor": f"it takes more than {limits.cpu_seconds} s of processor time",
        "time": f"it takes longer than {seconds or limits.seconds:g} s",
        "answer": f"what it becomes is larger than {data_size(limits.answer_bytes)}",
    }
    raise Unreadable(told[limit], limit)
