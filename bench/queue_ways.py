"""The queues that `bench.queue` compares: how each is started, filled, asked how much is left, and emptied."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg
from redis import Redis
from sqlalchemy import text
from sqlalchemy.orm import Session

from bench.queue_celery import BENCH, QUEUE, READY
from shared.db.farm import farm_id
from shared.db.sessions import Sessions, transact
from shared.embedded_addresses import DATABASE, PORT, redis_url, socket_folder
from shared.messaging.tickets import TASK, Tickets, celery_app
from shared.models.model_set import ModelSet
from shared.params.pools import DEFAULT_POOL
from shared.params.render import RenderParams
from shared.queue.submit import Admission, submit

ROOT: Final = Path(__file__).parents[1]
SLOTS: Final = 8
PINS: Final = ("rq==3.0.0", "redis==8.1.0", "procrastinate==3.10.0", "psycopg[binary]==3.3.9")
PEER: Final = "from bench.queue_peers import main; main()"  # not as __main__, of which workers know nothing
CHECKPOINT: Final = "c" * 64
OWNERS: Final = 4
IMAGES_A_JOB: Final = 10
LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Way:
    """One queue: the commands of its workers, and what is asked of it from outside."""

    name: str
    commands: tuple[list[str], ...]
    fill: Callable[[int], None]
    left: Callable[[int], int]  # of so many that were filled in since `clear`
    clear: Callable[[], None]
    ready: Callable[[], int]  # workers that take work
    environ: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def working(way: Way) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run the workers of `way`; the block begins when all of them are ready."""
    way.clear()
    processes = [subprocess.Popen(command, env=os.environ | way.environ, cwd=ROOT) for command in way.commands]
    try:
        until(lambda: way.ready() >= len(processes), f"{way.name}: ready workers", processes)
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def until(is_so: Callable[[], bool], what: str, processes: list[subprocess.Popen[bytes]], seconds: float = 180) -> None:
    """Wait until it is so. Ends the benchmark when it takes too long, or when a worker has died."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            raise SystemExit(f"Given up: {what}.")
        time.sleep(LOOK_SECONDS)


@dataclass(frozen=True)
class Round:
    """What a round came to: lifecycles a second, and processor seconds of each, of the workers and of the servers.

    On a machine that others use too the latter are the steadier ones.
    """

    a_second: float
    workers: float
    servers: float

    @property
    def processor(self) -> float:
        return self.workers + self.servers


def rate(
    way: Way, processes: list[subprocess.Popen[bytes]], before: int, number: int, servers: Iterable[int] = ()
) -> Round:
    """Measure how `number` get done that wait when the workers are let go; `servers` are processes to be watched."""
    groups = [[process.pid for process in processes], list(servers)]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    way.fill(number)
    spent, started = [_processor(group) for group in groups], time.perf_counter()
    for process in processes:
        process.send_signal(signal.SIGCONT)
    until(lambda: way.left(before + number) <= 0, f"{way.name}: {number} done", processes, seconds=180)
    seconds = time.perf_counter() - started
    workers, others = ((_processor(group) - before) / number for group, before in zip(groups, spent, strict=True))
    return Round(number / seconds, workers, others)


def _processor(pids: Iterable[int]) -> float:
    """Return the processor seconds of these processes and of all that they started, ended ones included."""
    ticks: dict[int, int] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            ticks[int(entry.name)] = sum(map(int, fields[11:15]))  # its own, and those of ended children
    family = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")


def farm(name: str, sessions: Sessions, home: Path, environ: Mapping[str, str]) -> Way:
    """Return this farm, with workers that render nothing."""
    redis, tickets = (
        Redis.from_url(redis_url(home)),
        Tickets(redis_url(home), farm_id(sessions)),
    )
    seeds = count()

    def fill(number: int) -> None:
        for done in range(0, number, IMAGES_A_JOB):
            images = min(IMAGES_A_JOB, number - done)
            owner = f"owner {next(seeds) % OWNERS}"
            transact(sessions, partial(_submit, owner=owner, images=images))
            tickets.publish(DEFAULT_POOL, images)
            tickets.flush(5)  # of more at once that wait to leave it drops some

    def clear() -> None:
        redis.flushdb()
        transact(sessions, lambda session: session.execute(text("TRUNCATE jobs, images, history, workers CASCADE")))

    return Way(
        name,
        tuple(
            [sys.executable, "-m", "bench.queue_worker", "--slots", str(SLOTS), "--card", f"cpu:{number}"]
            for number in (0, 1)
        ),
        fill,
        # Of the jobs: to count the images twenty times a second would cost more than it measures.
        lambda _: _number(sessions, "SELECT count(*) FROM jobs WHERE state <> 'succeeded'"),
        clear,
        lambda: _number(sessions, "SELECT count(*) FROM workers WHERE state = 'ready'"),
        environ,
    )


def _submit(session: Session, owner: str, images: int) -> None:
    params = RenderParams(prompt="nothing", checkpoint="none", width=64, height=64, steps=1, seed=1, count=images)
    submit(session, Admission(owner, params, ModelSet(checkpoint=CHECKPOINT)))


def _number(sessions: Sessions, query: str) -> int:
    found: int = transact(sessions, lambda session: session.execute(text(query)).scalar_one())
    return found


def bare_celery(home: Path) -> Way:
    """Return Celery with the farm's own settings and an empty task: it keeps no record."""
    url = redis_url(home)
    redis, app = Redis.from_url(url), celery_app(url, BENCH)

    def fill(number: int) -> None:
        with app.producer_or_acquire() as producer:
            for _ in range(number):
                app.send_task(TASK, queue=QUEUE, producer=producer)

    return Way(
        "bare Celery",
        tuple([sys.executable, "-m", "bench.queue_celery", url, str(SLOTS)] for _ in range(2)),
        fill,
        lambda _: _int(redis.llen(BENCH.key(QUEUE))) + _int(redis.hlen(BENCH.key("unacked"))),
        redis.flushdb,
        lambda: _int(redis.get(READY) or 0),
    )


def rq(home: Path, python: Path, *, forks: bool) -> Way:
    """Return RQ, with its default worker that forks for each job, or with the one that does not."""
    url = redis_url(home)
    redis, peer = Redis.from_url(url), [str(python), "-c", PEER, "rq"]
    order = "work" if forks else "work-unforked"
    return Way(
        "RQ" if forks else "RQ, without forks",
        tuple([*peer, order, "1", url] for _ in range(2)),
        lambda number: _run([*peer, "fill", str(number), url]),
        lambda filled: filled - _int(redis.zcard("rq:finished:default")),
        redis.flushdb,
        lambda: _int(redis.scard("rq:workers")),
    )


def procrastinate(home: Path, python: Path) -> Way:
    """Return procrastinate, on a database of its own in the same PostgreSQL."""
    server = f"host={socket_folder(home)} port={PORT} user={DATABASE}"
    url = f"{server} dbname=procrastinate"
    with psycopg.connect(url.replace("procrastinate", "postgres"), autocommit=True) as administrator:
        administrator.execute("CREATE DATABASE procrastinate")
    peer = [str(python), "-c", PEER, "procrastinate"]
    _run([*peer, "schema", "0", url])
    asked = psycopg.connect(url, autocommit=True)

    def number(query: str) -> int:
        return _int((asked.execute(query).fetchone() or [0])[0])

    return Way(
        "procrastinate",
        tuple([*peer, "work", str(SLOTS), url] for _ in range(2)),
        lambda number: _run([*peer, "fill", str(number), url]),
        lambda filled: filled - number("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"),
        lambda: _done(asked.execute("TRUNCATE procrastinate_jobs, procrastinate_workers CASCADE")),
        lambda: number("SELECT count(*) FROM procrastinate_workers"),
    )


def peers(folder: Path) -> Path:
    """Return the Python of the environment that holds the peers in their pinned versions, made if need be."""
    home = folder / hashlib.sha256(" ".join(PINS).encode()).hexdigest()[:12]
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        venv.create(home, clear=True, with_pip=True)
        _run([str(python), "-m", "pip", "install", "--quiet", "--quiet", *PINS])
        (home / "complete").touch()
    return python


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, cwd=ROOT)


def _int(answer: Any) -> int:  # noqa: ANN401 - redis-py answers awaitables too, by its types
    return int(answer)


def _done(_: object) -> None: ...
