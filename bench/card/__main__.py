"""`python -m bench.card`: what the first day with a card must show, in one run of less than ten minutes.

Nine parts, each in a process of its own with a limit, and a table last. It needs worker.engine, the parameters and a
card: no database, no Redis, no network. `--pretend` rehearses all of it without a card, with tiny sizes. The exit
status is 1 where correctness, memory or trouble (parts 2, 3, 4 and 8) failed, or an error or its limit ended a part;
speed reports, and may be cut short.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.card import packages
from bench.card.measures import Measure, failures, found
from bench.card.parts import PARTS, chosen
from bench.card.results import Results
from bench.card.table import amount

SHARED_MEMORY: Final = Path("/dev/shm")
SCRATCH_BYTES: Final = 6 * 2**30  # two full-size checkpoints and the demo's
LOG: Final = "card.log"
LIBRARIES: Final = ("bench.plain", "bench.company", "worker.engine.loading.networks")  # what most parts import
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, print the table; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["prepare"]:
        return _prepare(arguments[1:])
    options = _parsed(arguments)
    try:
        with _stoppable(), _scratch() as scratch:
            return _prepared(options, scratch)
    except KeyboardInterrupt:
        print("bench.card: stopped before anything was measured", file=sys.stderr)
        return INTERRUPTED


def _prepared(options: argparse.Namespace, scratch: Path) -> int:
    if options.wheels and not options.wheels.is_dir():
        return _refused(f"there is no folder {options.wheels} of wheels: name one with --wheels, or leave that out")
    if options.wheels:
        packages.bring_in(options.wheels, scratch / "site")
    if lacking := packages.missing():
        return _refused(_what_to_bring(lacking))
    return _run(options, scratch)


def _run(options: argparse.Namespace, scratch: Path) -> int:
    if options.pretend:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
    if why := packages.why_no_torch():
        return _refused(
            f"torch cannot be imported: {why}. Install its build for the card: https://pytorch.org says how"
        )
    from bench.card import children  # noqa: PLC0415 - needs what was brought
    from bench.card.bench import Setting  # noqa: PLC0415

    if reason := _no_card(options) or children.warm(LIBRARIES):
        return _refused(reason)
    try:
        results = Results(options.out)
    except OSError as error:
        return _refused(f"--out {options.out}: {error.strerror}: name a folder that can be written")
    setting = Setting(options.card, scratch, options.demo, options.out / LOG, options.pretend)
    status = 0
    try:
        for part in options.parts:
            _part(part, setting, results, options.limit or PARTS[part].limit_seconds)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        status = INTERRUPTED
    print(f"\n{results.table()}\n\nfigures: {options.out.resolve()}")
    for measure in (failed := failures(results.measures)):
        print(f"FAIL: part {measure.part}, {measure.name}: {amount(measure)} ({measure.target})")
    return status or bool(failed)


def _part(part: int, setting: object, results: Results, limit_seconds: float) -> None:
    from bench.card import children  # noqa: PLC0415 - as above

    begun = time.monotonic()

    def heard(message: str | Measure) -> None:
        if isinstance(message, Measure):
            results.add(message)
            verdict = {None: "", True: "  ok", False: "  FAIL"}[message.is_ok]
            message = f"{message.name}: {amount(message)}{verdict}"
        print(f"[{part} {PARTS[part].name} {time.monotonic() - begun:5.1f} s] {message}", flush=True)

    try:
        children.run(part, setting, found(results.measures), heard, limit_seconds=limit_seconds)
    finally:
        results.ended(part, time.monotonic() - begun)


def _no_card(options: argparse.Namespace) -> str:
    """Why there is no card to run on; "" if there is one."""
    import torch  # noqa: PLC0415 - seconds, and only here

    if options.pretend:
        from tests.support import pretended_card  # noqa: PLC0415 - of a development checkout alone

        return pretended_card.reason_not_to()
    if torch.cuda.is_available():
        return "" if options.demo.exists() else f"there is no demo checkpoint {options.demo}: name one with --demo"
    why = "is a build for CPUs" if torch.version.cuda is None else f"for CUDA {torch.version.cuda} finds none"
    return f"there is no card here: torch {torch.__version__} {why}. --pretend rehearses the run without one."


def _what_to_bring(lacking: Sequence[str]) -> str:
    command = packages.pip_command(lacking, "wheels")
    return (
        f"this Python lacks {', '.join(lacking)}. With a network:\n  {command}\n"
        "Bring the folder here and name it: --wheels FOLDER.\n"
        "On a machine with a whole checkout, `python -m bench.card prepare FOLDER` gathers all that is needed here."
    )


def _refused(reason: str) -> int:
    print(f"bench.card: {reason}", file=sys.stderr)
    return 2


def _prepare(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("bench.card prepare", description="Gather what must travel to a bare machine.")
    parser.add_argument("folder", type=Path)
    try:
        print(packages.prepare(parser.parse_args(arguments).folder))
    except OSError as error:
        return _refused(f"{error}: name a folder that can be written, and run this in a whole checkout")
    return 0


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "bench.card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="`python -m bench.card prepare FOLDER` gathers what must travel to a machine without a network.",
    )  # fmt: skip
    parser.add_argument(
        "--parts", type=_parts, default=tuple(range(len(PARTS))), help="numbers, such as 3,4; all without it"
    )
    parser.add_argument("--card", default="cuda:0")
    parser.add_argument("--pretend", action="store_true", help="on a pretended card, with tiny sizes: a rehearsal")
    parser.add_argument("--out", type=Path, default=Path("bench-card"), help="folder for the figures and the table")
    parser.add_argument("--wheels", type=Path, help="folder with wheels of what this Python lacks")
    parser.add_argument("--demo", type=Path, default=packages.DEMO, help="the demo checkpoint, also packed as .xz")
    parser.add_argument("--limit", type=float, help="seconds for each part, in place of its own limit")
    return parser.parse_args(arguments)


def _parts(text: str) -> tuple[int, ...]:
    try:
        return chosen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


@contextmanager
def _stoppable() -> Iterator[None]:
    """Within the block SIGTERM ends a run as Ctrl-C does: with the table of what there is."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for checkpoints: in memory if there is room, because disks are not measured."""
    has_room = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > SCRATCH_BYTES
    with tempfile.TemporaryDirectory(prefix="bench-card-", dir=SHARED_MEMORY if has_room else None) as folder:
        yield Path(folder)


if __name__ == "__main__":
    raise SystemExit(main())
