"""The peers' side, for their own environment: `main` with the arguments PEER, `schema`, `fill` or `work`, NUMBER, URL.

RQ's worker forks for each job, as is its default, and does one at a time. procrastinate's takes as many at once as the
farm has slots, and is woken by NOTIFY.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


def nothing() -> None:
    """Do what an empty render does."""


def rq(order: str, number: int, url: str) -> None:
    """Fill RQ's queue, or be its worker."""
    from redis import Redis  # noqa: PLC0415 - each peer by itself
    from rq import Queue, SimpleWorker, Worker  # noqa: PLC0415

    queue = Queue("default", connection=Redis.from_url(url))
    if order == "fill":
        for count in _portions(number):
            queue.enqueue_many([Queue.prepare_data(nothing) for _ in range(count)])
    else:
        kind: type[Any] = SimpleWorker if order == "work-unforked" else Worker
        kind([queue], connection=queue.connection).work(logging_level="WARNING")


def procrastinate(order: str, number: int, url: str) -> None:
    """Make procrastinate's tables, fill its queue, or be its worker."""
    from procrastinate import App, PsycopgConnector, SyncPsycopgConnector  # noqa: PLC0415

    is_worker = order == "work"
    app = App(connector=(PsycopgConnector if is_worker else SyncPsycopgConnector)(conninfo=url))

    @app.task(name="nothing", queue="default")
    async def empty() -> None: ...

    if is_worker:
        app.run_worker(concurrency=number)
        return
    with app.open():
        if order == "schema":
            app.schema_manager.apply_schema()
        for count in _portions(number):
            empty.batch_defer(*({} for _ in range(count)))


def _portions(number: int, most: int = 500) -> Iterator[int]:
    yield from (min(most, number - done) for done in range(0, number, most))


def main() -> None:
    """Do what the arguments ask for."""
    _, peer, order, number, url = sys.argv
    {"rq": rq, "procrastinate": procrastinate}[peer](order, int(number), url)
