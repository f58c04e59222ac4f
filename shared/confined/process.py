"""Reads foreign bytes in a child process: if they are harmful, they end the child and nothing else.

The child gets none of the farm's environment and secrets, writes no file, and has limits of memory, processor time and
time for each question. It ends when its parent ends, also after kill -9.
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
"""The first byte of an answer: the result, that memory ran out, or why the code of the child failed."""
SIZE: Final = struct.Struct("<Q")  # before each question, and after the first byte of each answer

_PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR")  # the interpreter needs them to find its libraries
_ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
_CHUNK: Final = 2**16
_KILLED_SECONDS: Final = 5.0  # a process that waits for a dead disk cannot be killed, and is not waited for any longer


@dataclass(frozen=True)
class Limits:
    """What a child may take for one question."""

    memory_bytes: int  # beyond what the imports take; mapped files do not count
    cpu_seconds: int  # of all its threads together
    seconds: float  # from question to answer
    answer_bytes: int = 2**20
    start_seconds: float = 120.0  # to import its module, from a cold disk


class Confined:
    """A child that has imported `module` and answers questions with the module's `answer(question: bytes) -> bytes`.

    It starts with the first question. A question that ends or exhausts it raises Unreadable, and the next question
    starts another child. One thread at a time may ask.
    """

    def __init__(self, module: str, limits: Limits) -> None:
        self._module = module
        self._limits = limits
        self._child: subprocess.Popen[bytes] | None = None
        self._life = -1  # the child ends when this end of its pipe closes, which the kernel does for the dead

    def ask(self, question: bytes) -> bytes:
        """Return the child's answer. Raises Unreadable with the limit that it exceeded; NotConfined if none starts."""
        if self._child and self._child.poll() is not None:  # it was killed while it was idle
            self.close()
        child = self._child or self._start()
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
        """End the child and all processes that it started."""
        child, self._child = self._child, None
        if child is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_KILLED_SECONDS)
        os.close(self._life)
        for pipe in (child.stdin, child.stdout):
            with suppress(OSError):  # of the rest of a question
                cast("IO[bytes]", pipe).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            self._child = self._spawn()
        except OSError as error:
            raise NotConfined(f"no process could be started to read with: {error}") from error
        try:
            kind, answer = self._exchange(self._child, b"", self._limits.start_seconds)
        except Unreadable as error:
            kind, answer = FAILED, str(error).encode()
        if kind != ANSWER:
            self.close()
            raise NotConfined(f"the process to read with did not start: {answer.decode(errors='replace')}")
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
        """Return the first byte of the answer, and its content."""
        deadline = time.monotonic() + seconds
        unsent, came = [memoryview(SIZE.pack(len(question))), memoryview(question)], bytearray()
        stdin, stdout = cast("IO[bytes]", child.stdin).fileno(), cast("IO[bytes]", child.stdout).fileno()
        os.set_blocking(stdin, False)
        with selectors.DefaultSelector() as selector:
            selector.register(stdin, selectors.EVENT_WRITE)
            selector.register(stdout, selectors.EVENT_READ)
            head = SIZE.size + 1
            while len(came) < head or len(came) - head < SIZE.unpack_from(came, 1)[0]:
                for ready, _ in selector.select(max(0.0, deadline - time.monotonic())):
                    if ready.fd == stdout:
                        came += os.read(stdout, _CHUNK) or self._explain(child)
                    elif not (unsent := _sent(stdin, unsent)):
                        selector.unregister(stdin)
                if len(came) > self._limits.answer_bytes + head:
                    _exceed("answer", self._limits)
                if time.monotonic() >= deadline:
                    _exceed("time", self._limits, seconds)
        return bytes(came[:1]), bytes(memoryview(came)[head:])

    def _explain(self, child: subprocess.Popen[bytes]) -> NoReturn:
        """Raise Unreadable with the reason why the child ended."""
        with suppress(subprocess.TimeoutExpired):
            child.wait(_KILLED_SECONDS)
        status = child.returncode or 0
        if status == -signal.SIGXCPU:
            _exceed("processor", self._limits)
        raise Unreadable(f"it ended its process ({signal.Signals(-status).name if status < 0 else f'status {status}'})")


def _sent(pipe: int, unsent: list[memoryview]) -> list[memoryview]:
    """Send what the pipe takes and return the rest; nothing if the child is gone, which the other pipe shows."""
    first, *others = unsent
    try:
        rest = first[os.write(pipe, first[:_CHUNK]) :]
    except BrokenPipeError:
        return []
    return [rest, *others] if rest else [one for one in others if one]


def _exceed(limit: Limit, limits: Limits, seconds: float | None = None) -> NoReturn:
    reasons: dict[Limit, str] = {
        "memory": f"it takes more than {data_size(limits.memory_bytes)} of memory",
        "processor": f"it takes more than {limits.cpu_seconds} s of processor time",
        "time": f"it takes longer than {seconds or limits.seconds:g} s",
        "answer": f"its result is larger than {data_size(limits.answer_bytes)}",
    }
    raise Unreadable(reasons[limit], limit)
