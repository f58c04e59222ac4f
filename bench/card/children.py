"""A part in a process of its own with a limit: a hang, a crash or a lost card costs that part alone."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Final, NamedTuple

import structlog

from bench.card.bench import Bench, Message, Setting
from bench.card.measures import ENDING, Measure
from bench.card.parts import PARTS
from worker.engine import devices

log = structlog.get_logger(__name__)

PRETENDED_BYTES: Final = 4 * 2**30  # a small card has few rows, and a rehearsal little time
Heard = Callable[[Message], object]


def context(setting: Setting) -> BaseContext:
    """Return how processes are started: spawned for a card, because CUDA cannot fork; else forked, which saves imports.

    torch's threads cannot fork either: a part starts its own children before it computes anything.
    """
    return get_context("fork" if setting.pretends else "spawn")


def run(part: int, setting: Setting, earlier: Mapping[str, float], heard: Heard, *, limit_seconds: float) -> None:
    """Run a part; `heard` gets its results at once, and an error if the part did not end by itself."""
    ours, theirs = context(setting).Pipe(duplex=False)
    deadline = time.monotonic() + limit_seconds
    child = context(setting).Process(target=_work, args=(part, setting, earlier, deadline, theirs))  # type: ignore[attr-defined]
    child.start()
    theirs.close()
    try:
        is_late = _listen(ours, child, heard, deadline)
    finally:
        _kill(child)
    if is_late:
        heard(
            Measure(part, ENDING, f"stopped at its limit of {limit_seconds:g} s", target="ends by itself", is_ok=False)
        )
    elif child.exitcode:
        words = f"its process ended with {child.exitcode}"
        heard(Measure(part, ENDING, words, target="ends by itself", is_ok=False, traceback=words))


def _listen(ours: Connection, child: BaseProcess, heard: Heard, deadline: float) -> bool:
    """Pass on what the child tells until it has ended; return whether its time ran out before."""
    while ready := wait([ours, child.sentinel], max(0.0, deadline - time.monotonic())):
        if ours not in ready:
            child.join()
            break
        try:
            heard(ours.recv())
        except EOFError:
            child.join(max(0.0, deadline - time.monotonic()))
            return child.is_alive()
    else:
        return True
    with suppress(EOFError):  # its last results
        while ours.poll():
            heard(ours.recv())
    return False


def _kill(child: BaseProcess) -> None:
    """End a child and all that it started."""
    with suppress(ProcessLookupError, TypeError):
        os.killpg(child.pid or 0, signal.SIGKILL)
    child.kill()
    child.join()


def _work(part: int, setting: Setting, earlier: Mapping[str, float], deadline: float, pipe: Connection) -> None:
    os.setsid()  # with all that it starts it is killed as one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    bench = Bench(setting, part, earlier, deadline, pipe.send)
    try:
        enter(setting)
        import_module(f"bench.card.{PARTS[part].name}").run(bench)
    except Exception as error:  # noqa: BLE001 - the edge: any error is reported
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        bench.tell(Measure(part, ENDING, words, target="no error", is_ok=False, traceback=traceback.format_exc()))


class Helper(NamedTuple):
    """A process that works beside a part, and our end of the pipe to it."""

    process: BaseProcess
    pipe: Connection

    def answer(self, bench: Bench) -> Any:  # noqa: ANN401 - whatever it sends
        """Return its next message. Raises RuntimeError if it ends silently, or the time is over."""
        if not self.pipe.poll(max(0.0, bench.seconds_left)):
            raise RuntimeError("a process that was to answer took too long")
        try:
            return self.pipe.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"a process that was to answer ended with {self.process.exitcode}") from None


@contextmanager
def helper(bench: Bench, work: Callable[[Setting, Connection], object]) -> Iterator[Helper]:
    """Yield a process that does `work`, which is given a pipe; afterwards it is killed."""
    ours, theirs = context(bench.setting).Pipe(duplex=False)
    process = context(bench.setting).Process(target=_serve, args=(work, bench.setting, theirs))  # type: ignore[attr-defined]
    process.start()
    theirs.close()
    try:
        yield Helper(process, ours)
    finally:
        process.kill()
        process.join()


def _serve(work: Callable[[Setting, Connection], object], setting: Setting, pipe: Connection) -> None:
    try:
        work(setting, pipe)
    except Exception as error:  # the edge: its silence is reported, and the log has the reason
        log.exception("a process of the run failed", reason=str(error))
        raise SystemExit(1) from None


def enter(setting: Setting) -> None:
    """Make this process one that has the card, and whose log goes to a file beside the figures."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level, structlog.processors.TimeStamper("iso"),
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        logger_factory=structlog.WriteLoggerFactory(setting.log.open("a", encoding="utf-8")),
    )  # fmt: skip
    if setting.pretends:
        import_module("tests.support.pretended_card").install(capacity=PRETENDED_BYTES)
    devices.enter(devices.device(setting.card))  # what is measured beside the engine is measured with its settings


def warm(modules: Iterable[str]) -> str:
    """Import what all parts need, which children that are forked find imported; return why that cannot be, or ""."""
    try:
        for module in modules:
            import_module(module)
    except (ImportError, RuntimeError) as error:  # the latter from libraries that import others when they are asked
        why = " ".join(str(error).split())
        return f"the libraries here do not work together: {why[:400]}"
    return ""
