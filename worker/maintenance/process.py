"""`python -m worker.maintenance.process`: does the farm's chores. No card, no torch.

Any number of such processes may run, and one is enough.

The process has its own clock, so chores go on without Redis. A Celery message on the queue `chores` names a chore that
is to be done now; if it is lost, the chore is done when it is due.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import structlog
from celery.exceptions import CPendingDeprecationWarning
from kombu.exceptions import OperationalError
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared import settings
from shared.db import sessions as database
from shared.db.farm import farm_id
from shared.db.locks import APPLICATION
from shared.errors import FarmError, Unavailable, explain
from shared.logs import setup
from shared.media.ownership import guarded
from shared.messaging.events import Events
from shared.messaging.tickets import CHORE, CHORES_QUEUE, WORKER_OPTIONS, Tickets, celery_app
from shared.settings import Settings
from worker.dispatch.consumer import Consumer, stop_consuming
from worker.maintenance import tasks
from worker.maintenance.scheduler import ScheduledChore, schedule
from worker.maintenance.tasks import Chore, ChoreContext
from worker.supervisor import child
from worker.supervisor.clock_guard import ClockGuard, boot_clock
from worker.supervisor.signals import Shutdown

log = structlog.get_logger(__name__)

_GRACE_SECONDS: Final = 5.0  # to leave Redis in order; chores may be ended anywhere
_AGAIN_SECONDS: Final = 1.0


Table = Callable[[Settings], Sequence[Chore]]


def main(argv: Sequence[str] | None = None, table: Table = tasks.table) -> int:
    """Do what the arguments ask for; return the exit status."""
    try:
        farm = settings.load()
        setup.configure(farm)
        names = [chore.name for chore in table(farm)]
        requested = _parser(names).parse_args(argv).now
        return request(farm, requested) if requested else run_chores(farm, table)
    except FarmError as error:
        sys.stderr.write(f"{explain(error)}\n")
        return 2


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="farm chores", description="Do the farm's chores, until a signal ends it.")
    parser.add_argument(
        "--now", action="append", choices=names, help="have this chore done now, by those that do chores"
    )
    return parser


def run_chores(farm: Settings, table: Table = tasks.table) -> int:
    """Do the farm's chores until a signal ends it; return the exit status."""
    shutdown = Shutdown(_GRACE_SECONDS)
    shutdown.install(stop_consuming, lambda: os._exit(child.CLEAN))
    with open_context(farm) as context:
        chores = schedule(table(farm), context)
        for chore in chores.values():
            chore.start()
        log.info("chores ready", chores=list(chores))
        while not shutdown.is_requested.is_set():
            _consume(context, chores)
            shutdown.is_requested.wait(_AGAIN_SECONDS)
        for chore in chores.values():
            chore.stop()
    log.info("chores left")
    return child.CLEAN


def request(farm: Settings, names: Sequence[str]) -> int:
    """Have these chores done now, by any process of the farm that does chores; return the exit status."""
    engine = database.connect(farm.database, application=APPLICATION)
    try:
        with celery_app(farm.redis, farm_id(database.sessions(engine))) as app:
            for name in names:
                app.send_task(CHORE, [name], queue=CHORES_QUEUE, retry=False)
    except OperationalError as error:
        sys.stderr.write(f"Redis does not answer: {error}\n")
        return 1
    finally:
        engine.dispose()
    return 0


@contextmanager
def open_context(farm: Settings) -> Iterator[ChoreContext]:
    """Open the connections that chores use, and close them at the end of the block."""
    with ExitStack() as at_the_end:  # closes the latest first, also after an error
        # A chore holds its lock by one connection and works by another. When a process starts, all are due at once: if
        # their locks took every connection, none could begin.
        most = 2 * len(tasks.table(farm))
        engine = database.connect(farm.database, pool_size=8, max_connections=most, application=APPLICATION)
        at_the_end.callback(engine.dispose)
        sessions = database.sessions(engine)
        this_farm = farm_id(sessions)
        redis = Redis.from_url(farm.redis, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 1))
        events, tickets = Events(farm.redis, this_farm), Tickets(farm.redis, this_farm)
        for connection in (redis, events, tickets):
            at_the_end.callback(connection.close)
        yield ChoreContext(
            settings=farm,
            sessions=sessions,
            farm_id=this_farm,
            redis=redis,
            storage=guarded(farm.storage, sessions, this_farm),
            tickets=tickets,
            events=events,
            # Ticks several times a lease; after half a lease of silence this process must not declare others dead.
            clock_guard=ClockGuard(farm.lease_seconds / 4, boot_clock),
        )


def _consume(context: ChoreContext, chores: Mapping[str, ScheduledChore]) -> None:
    """Take requests, until `stop_consuming` or until Celery gives up by itself; on the main thread."""
    try:
        app = celery_app(context.settings.redis, context.farm_id)
    except Unavailable as error:
        log.debug("no requests for chores yet", reason=explain(error))
        return

    @app.task(name=CHORE, shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def chore(name: str) -> None:
        if name in chores:  # another version may have others
            chores[name].request()

    # When Redis goes away Celery warns that a default will change, but the option is set here.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
    Consumer(
        app=app,
        hostname=f"chores-{os.getpid()}@{socket.gethostname()}",
        concurrency=1,
        queues=[CHORES_QUEUE],
        quiet=True,
        **WORKER_OPTIONS,
    ).start()


if __name__ == "__main__":
    sys.exit(main())
