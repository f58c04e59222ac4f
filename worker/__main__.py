"""`python -m worker`: `--gpus` supervises a process a card, `--card` is such a process."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NoReturn

import structlog

from shared import settings
from shared.db import sessions as database
from shared.errors import Conflict, FarmError, Unavailable, explain
from shared.logs import setup
from shared.models import first_scan
from shared.settings import Settings
from worker.render import host_memory
from worker.supervisor import child, gpu_lock, gpus
from worker.supervisor.launch import Orders
from worker.supervisor.signals import die_with
from worker.supervisor.status_pipe import Report
from worker.supervisor.supervisor import Supervisor

log = structlog.get_logger(__name__)

Work = Callable[[Orders], int]
_SETTINGS: Final = ("gpus", "slots", "host_cache_bytes")  # that an option of the same name overrides


def main(argv: Sequence[str] | None = None, *, module: str = "worker", work: Work | None = None) -> int:
    """Do what the arguments ask for; return the exit status.

    The supervisor starts its workers as `module`; `work` is what such a process does, by default `worker.process.work`.
    """
    options = _parser().parse_args(argv)
    given = {f"FARM_{name.upper()}": getattr(options, name) for name in _SETTINGS}
    try:
        farm = settings.load({**os.environ, **{name: value for name, value in given.items() if value is not None}})
        setup.configure(farm)
        return _work(farm, options, work) if options.card else _supervise(farm, module)
    except Conflict as conflict:
        log.warning("card busy", card=options.card, reason=str(conflict))
        return child.BUSY
    except FarmError as error:
        sys.stderr.write(f"{explain(error)}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Render the farm's pictures on this machine.")
    parser.add_argument("--gpus", help="a worker for each card: all | 0,2 | 0:1 | cpu | cpu:2 (default: FARM_GPUS)")
    parser.add_argument("--slots", help="images that a worker carries at once (default: FARM_SLOTS)")
    parser.add_argument(
        "--host-cache-bytes", help="memory that keeps checkpoints ready for its cards (default: FARM_HOST_CACHE_BYTES)"
    )
    parser.add_argument("--card", help="be one worker, for this card: cuda:0, cuda:0:1, cpu:0")
    parser.add_argument("--uuid", help="the UUID of that card: nvidia-smi is not asked then")
    parser.add_argument("--label", default="NVIDIA card", help=argparse.SUPPRESS)  # its name for people, beside --uuid
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # drain when this process is gone
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)  # the pipe to the supervisor
    return parser


def _supervise(farm: Settings, module: str) -> int:
    there = gpus.Present() if farm.gpus.startswith("cpu") else gpus.present(os.environ)
    served = gpus.asked(farm.gpus, there)
    if farm.gpus == "all" and not there.cards:
        log.warning("no card found: one worker on the CPU", cuda_visible_devices=there.only)
    kept = host_memory.cache_bytes(farm) // len(served)
    command = [sys.executable, "-m", module, "--slots", str(farm.slots), "--host-cache-bytes", str(kept)]
    engine = database.connect(farm.database, pool_size=1, application="farm supervisor")
    sessions = database.sessions(engine)
    try:
        with suppress(Unavailable):  # only said for people: the workers themselves wait for the database
            database.transact(sessions, first_scan.note_start)
        return Supervisor(served, command, sessions, farm.grace_seconds).run()
    finally:
        engine.dispose()


def _work(farm: Settings, options: argparse.Namespace, work: Work | None) -> int:
    if options.parent:
        die_with(options.parent)
    card = _card(options)
    gpus.pin(card)
    orders = Orders(card, farm, Report(options.report))
    with gpu_lock.hold(gpu_lock.path(card, farm.home)):
        return (work or _be_worker)(orders)


def _card(options: argparse.Namespace) -> gpus.Address:
    """Return the card to serve. With its UUID nothing is asked of the driver, which another card may keep busy."""
    is_real = options.card.startswith("cuda:")
    if options.uuid and is_real:
        return gpus.Address(options.card, options.uuid, options.label)
    return gpus.find(options.card, gpus.present(os.environ) if is_real else gpus.Present())


def _be_worker(orders: Orders) -> int:
    from worker import process  # noqa: PLC0415 - Celery: the supervisor does without

    return process.work(orders)


def end(status: int) -> NoReturn:
    """End this process at once: taking torch and its libraries down in order takes seconds and saves nothing."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    end(main())
