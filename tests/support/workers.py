"""Workers for tests, in this process or in their own, and what the database knows of their images."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from redis import Redis
from sqlalchemy import select

from shared.db import tables
from shared.db.farm import farm_id
from shared.db.sessions import Sessions, transact
from shared.db.states import WorkerState
from shared.db.tables import Image
from shared.media.storage import Storage
from shared.messaging.events import Events
from shared.messaging.tickets import Ticket, Tickets
from shared.params.pools import DEFAULT_POOL
from shared.queue import workers
from shared.settings import Settings
from tests.support import preloaded
from tests.support.stub_card import StubCard
from worker.context import Worker

ROOT = Path(__file__).parents[2]
QUICK = {
    "FARM_LEASE_SECONDS": "2",
    "FARM_BEAT_SECONDS": "0.3",
    "FARM_LOOK_SECONDS": "0.3",
    "FARM_GRACE_SECONDS": "20",
    "OMP_NUM_THREADS": "1",
}
"""Settings under which what takes seconds in a farm takes a fraction of one."""

STUB = "tests.support.stub_worker"
TICKET = Ticket(was_passed=False)


@contextmanager
def started(
    environ: Mapping[str, str],
    *arguments: str,
    module: str = STUB,
    log: Path | None = None,
    parent: preloaded.Parent | None = None,
) -> Iterator[preloaded.Process]:
    """A worker process, or a supervisor, gone at the end of the block with all that it started."""
    with Path(os.devnull).open("rb") as nothing, log.open("wb") if log else nullcontext() as stderr:
        files = {0: nothing.fileno(), 1: 1, 2: stderr.fileno() if stderr else 2}
        parent = parent or preloaded.parent("-W", "error")
        process = parent.start([module, *arguments], {**QUICK, **environ}, files)
    try:
        yield process
    finally:
        # A supervisor takes its workers along; a worker alone has nothing that a test would miss.
        for number in (signal.SIGKILL,) if "--card" in arguments else (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(number)
                _wait(process, 8)


def _wait(process: preloaded.Process, seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


@contextmanager
def made(settings: Settings, sessions: Sessions, slots: int = 8) -> Iterator[Worker]:
    """A registered, ready worker of this process, without heartbeats and tickets of its own."""
    known = {"name": "host/cpu:0", "host": "host", "pid": os.getpid(), "card": "cpu:0", "card_name": "CPU"}
    terms = {"pool": DEFAULT_POOL, "slots": slots, "lease_seconds": settings.lease_seconds}
    ours = farm_id(sessions)
    events, tickets = Events(settings.redis, ours), Tickets(settings.redis, ours)
    with Redis.from_url(settings.redis) as redis:
        yield Worker(
            id=transact(sessions, lambda session: workers.register(session, **known, **terms)),
            name=known["name"],
            pools=(DEFAULT_POOL,),
            slots=slots,
            settings=settings,
            sessions=sessions,
            farm_id=ours,
            redis=redis,
            events=events,
            tickets=tickets,
            storage=Storage(settings.storage),
            card=StubCard(),
            state=WorkerState.READY,
        )
    events.close()
    tickets.close()


def images(sessions: Sessions, job_id: int | None = None) -> list[Image]:
    """Return the images of a job, or all, in the order of their ids."""
    query = select(Image).order_by(Image.id)
    query = query if job_id is None else query.where(Image.job_id == job_id)
    return transact(sessions, lambda session: list(session.scalars(query)))


def states(sessions: Sessions, job_id: int | None = None) -> list[str]:
    return [image.state for image in images(sessions, job_id)]


def ready(sessions: Sessions, count: int = 1) -> list[tables.Worker]:
    """Return the ready workers if there are `count` of them."""
    query = select(tables.Worker).where(tables.Worker.state == "ready").order_by(tables.Worker.id)
    found = transact(sessions, lambda session: list(session.scalars(query)))
    return found if len(found) == count else []


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
