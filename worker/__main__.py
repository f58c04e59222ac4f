"""`python -m worker`: `--gpus` supervises a process a card, `--card` is such a process."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn

import structlog

from shared import settings
from shared.db import sessions as database
from shared.db.sessions import Sessions
from shared.errors import Conflict, FarmError, Unavailable, explain
from shared.logs import setup
from shared.models import first_scan
from shared.queue import reaper
from shared.setting_forms import AUTO
from shared.settings import Settings
from worker.render import host_memory
from worker.supervisor import child, gpu_lock, gpus
from worker.supervisor.child import Death
from worker.supervisor.launch import Launch
from worker.supervisor.signals import die_with
from worker.supervisor.status_pipe import StatusWriter
from worker.supervisor.supervisor import Supervisor

log = structlog.get_logger(__name__)

RunWorker = Callable[[Launch], int]
_SETTINGS: Final = ("gpus", "slots", "resident_bytes", "host_cache_bytes")
"""Settings that an option of the same name overrides."""


def main(argv: Sequence[str] | None = None, *, module: str = "worker", run_worker: RunWorker | None = None) -> int:
    """Do what the arguments ask for; return the exit status.

    The supervisor starts its workers as `module`; such a process calls `run_worker`, or `worker.process.run_worker`.
    """
    options = _parser().parse_args(argv)
    overrides = {f"FARM_{name.upper()}": getattr(options, name) for name in _SETTINGS}
    try:
        farm = settings.load({**os.environ, **{name: value for name, value in overrides.items() if value is not None}})
        setup.configure(farm)
        return _run_worker(farm, options, run_worker) if options.card else _supervise(farm, module)
    except Conflict as conflict:
        log.warning("card busy", card=options.card, reason=str(conflict))
        return child.BUSY
    except FarmError as error:
        sys.stderr.write(f"{explain(error)}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Render the farm's pictures on this machine.")
    parser.add_argument("--gpus", help="a worker for each card: all | 0,2 | 0:1 | cpu | cpu:2 (default: FARM_GPUS)")
    parser.add_argument("--slots", help="images that a worker renders at once (default: FARM_SLOTS)")
    parser.add_argument("--resident-bytes", help="memory for the models of each worker (default: FARM_RESIDENT_BYTES)")
    parser.add_argument(
        "--host-cache-bytes", help="memory that keeps checkpoints ready for its cards (default: FARM_HOST_CACHE_BYTES)"
    )
    parser.add_argument("--card", help="be one worker, for this card: cuda:0, cuda:0:1, cpu:0")
    parser.add_argument("--uuid", help="the UUID of that card; nvidia-smi is not run then")
    parser.add_argument("--label", default="NVIDIA card", help=argparse.SUPPRESS)  # name for people, beside --uuid
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # drain when this process is gone
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)  # the pipe to the supervisor
    return parser


def _supervise(farm: Settings, module: str) -> int:
    present = gpus.Present() if farm.gpus.startswith("cpu") else gpus.present(os.environ)
    cards = gpus.select(farm.gpus, present)
    if farm.gpus == "all" and not present.cards:
        log.warning("no card found: one worker on the CPU", cuda_visible_devices=present.only)
    for reason in settings.replaced():
        log.warning("setting replaced", reason=reason)
    cache_bytes = host_memory.cache_bytes(farm) // len(cards)
    command = [sys.executable, "-m", module, "--slots", str(farm.slots), "--host-cache-bytes", str(cache_bytes)]
    command += ["--resident-bytes", _resident_bytes(farm, cards)]
    engine = database.connect(farm.database, pool_size=1, application="farm supervisor")
    sessions = database.sessions(engine)
    try:
        with suppress(Unavailable):  # for people only: the workers themselves wait for the database
            database.transact(sessions, first_scan.record_start)
        return Supervisor(cards, command, partial(_mark_dead, sessions), farm.grace_seconds).run()
    finally:
        engine.dispose()


def _resident_bytes(farm: Settings, cards: Sequence[gpus.Address]) -> str:
    """Return the memory for the models of each worker; those on the CPU share what is left to themselves."""
    if farm.resident_bytes is not None:
        return str(farm.resident_bytes)
    on_cpu = all(card.name.startswith("cpu") for card in cards)
    return str(host_memory.resident_bytes(farm) // len(cards)) if on_cpu else AUTO


def _mark_dead(sessions: Sessions, worker_id: int, death: Death, *, is_crash: bool, remark: str) -> int:
    mark_dead = partial(reaper.mark_dead, worker_id=worker_id, reason=death.reason, files=death.files)
    return database.transact(sessions, partial(mark_dead, crashed=is_crash, remark=remark))


def _run_worker(farm: Settings, options: argparse.Namespace, run_worker: RunWorker | None) -> int:
    if options.parent:
        die_with(options.parent)
    card = _card(options)
    gpus.pin(card)
    launch = Launch(card, farm, StatusWriter(options.report))
    with gpu_lock.hold(gpu_lock.path(card, farm.home)):
        if run_worker is not None:
            return run_worker(launch)
        from worker import process  # noqa: PLC0415 - Celery, which the supervisor does not need

        return process.run_worker(launch)


def _card(options: argparse.Namespace) -> gpus.Address:
    """Return the card to serve. With its UUID the driver, which another card may keep busy, is not needed."""
    is_real = options.card.startswith("cuda:")
    if options.uuid and is_real:
        return gpus.Address(options.card, options.uuid, options.label)
    return gpus.find(options.card, gpus.present(os.environ) if is_real else gpus.Present())


def end(status: int) -> NoReturn:
    """End this process at once, because taking torch and its libraries down in order takes seconds for nothing."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    end(main())
