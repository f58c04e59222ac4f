"""`python -m worker.maintenance.process`: does the farm's chores. No card, no torch.

Any number of them may run, and one is enough.

A clock of its own says when a chore is due, so chores go on without Redis. A Celery message on the queue `chores` names
one and says: now. Lost, it costs the time until the chore is due.
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
from worker.dispatch.heartbeat import boot_clock
from worker.maintenance import tasks
from worker.maintenance.scheduler import Round, rounds
from worker.maintenance.tasks import Chore, Desk
from worker.supervisor import child
from worker.supervisor.clock_guard import Punctuality
from worker.supervisor.signals import Shutdown

log = structlog.get_logger(__name__)

_GRACE_SECONDS: Final = 5.0  # to leave Redis in order; chores are ended wherever they are
_AGAIN_SECONDS: Final = 1.0


Table = Callable[[Settings], Sequence[Chore]]


def main(argv: Sequence[str] | None = None, table: Table = tasks.table) -> int:
    """Do what the arguments ask for; return the exit status."""
    try:
        farm = settings.load()
        setup.configure(farm)
        names = [chore.name for chore in table(farm)]
        asked = _parser(names).parse_args(argv).now
        return ask(farm, asked) if asked else work(farm, table)
    except FarmError as error:
        sys.stderr.write(f"{explain(error)}\n")
        return 2


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="farm chores", description="Do the farm's chores, until a signal ends it.")
    parser.add_argument(
        "--now", action="append", choices=names, help="have this chore done now, by those that do chores"
    )
    return parser


def work(farm: Settings, table: Table = tasks.table) -> int:
    """Do the farm's chores until a signal ends it; return the exit status."""
    shutdown = Shutdown(_GRACE_SECONDS)
    shutdown.install(stop_consuming, lambda: os._exit(child.CLEAN))
    with desk(farm) as ours:
        asked = rounds(table(farm), ours)
        for one in asked.values():
            one.start()
        log.info("chores ready", chores=list(asked))
        while not shutdown.is_asked.is_set():
            _consume(ours, asked)
            shutdown.is_asked.wait(_AGAIN_SECONDS)
        for one in asked.values():
            one.stop()
    log.info("chores left")
    return child.CLEAN


def ask(farm: Settings, names: Sequence[str]) -> int:
    """Have these chores done now, by whichever process of the farm does chores; return the exit status."""
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
def desk(farm: Settings) -> Iterator[Desk]:
    """Lay out what chores are done with; all of it is let go at the end of the block."""
    with ExitStack() as at_the_end:  # what was laid out last is let go first, whatever happens
        engine = database.connect(farm.database, pool_size=8, application=APPLICATION)
        at_the_end.callback(engine.dispose)
        sessions = database.sessions(engine)
        ours = farm_id(sessions)
        redis = Redis.from_url(farm.redis, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 1))
        events, tickets = Events(farm.redis, ours), Tickets(farm.redis, ours)
        for one in (redis, events, tickets):
            at_the_end.callback(one.close)
        yield Desk(
            settings=farm,
            sessions=sessions,
            farm_id=ours,
            redis=redis,
            storage=guarded(farm.storage, sessions, ours),
            tickets=tickets,
            events=events,
            # Looked at several times a lease; half a lease of silence is too long to judge others by.
            punctuality=Punctuality(farm.lease_seconds / 4, boot_clock),
        )


def _consume(desk: Desk, ours: Mapping[str, Round]) -> None:
    """Hear what is asked for, until `stop_consuming` or until Celery gives up by itself; on the main thread."""
    try:
        app = celery_app(desk.settings.redis, desk.farm_id)
    except Unavailable as error:
        log.debug("hears of no chores yet", reason=explain(error))
        return

    @app.task(name=CHORE, shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def chore(name: str) -> None:
        if name in ours:  # else it is one of another version
            ours[name].ask()

    # When Redis goes away it warns of a default that will change: ours is set.
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
