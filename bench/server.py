"""The API's server beside slow clients, listeners, uploads and restarts, and its throughput beside gunicorn's threads.

    python -m bench.server [--gunicorn FOLDER]

FOLDER is where `pip install --target FOLDER gunicorn` put it; without it nothing is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import httpx

from api.socket import address, command, listen
from cli.embedded.servers import Servers
from shared.db import migrate
from shared.db.farm import farm_id
from shared.db.sessions import Sessions, connect, sessions
from shared.messaging.events import Events, Progress
from shared.settings import Settings
from tests.conftest import checkpoints_of

CLIENTS: Final = 600
STREAMS: Final = 500
JOBS: Final = 50
THREADS: Final = 16
HEAD: Final = b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
SLOW: Final = {"silent": b"", "headers": HEAD + b"X: a", "bodies": HEAD + b"Content-Length: 500\r\n\r\n{"}
GUNICORN: Final = """
import sys
from gunicorn.app.base import BaseApplication
from api.app import create_app
from shared import logs
from shared.settings import load

logs.configure(load())

class Server(BaseApplication):
    def load_config(self):
        given = {"bind": f"fd://{sys.argv[1]}", "worker_class": "gthread", "workers": 1, "threads": int(sys.argv[2]),
                 "loglevel": "warning", "control_socket_disable": True}
        for name, value in given.items():
            self.cfg.set(name, value)

    def load(self):
        return create_app(load())

Server().run()
"""


@dataclass
class Running:
    """A server and where it is reached."""

    process: subprocess.Popen[bytes]
    url: str

    @property
    def place(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def connect(self, first: bytes, receive_buffer: int = 0) -> socket.socket:
        made = socket.socket()
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.settimeout(30)
        made.connect(self.place)
        made.sendall(first)
        return made


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gunicorn", type=Path, help="where gunicorn is installed, to compare with")
    given = parser.parse_args()
    with prepared("server") as (settings, factory, environ):
        with serving(settings, environ, command) as ours:
            slow_clients(ours)
            streams(ours, Events(settings.redis, farm_id(factory)))
            if given.gunicorn:
                theirs = environ | {"PYTHONPATH": str(given.gunicorn)}
                with serving(settings, theirs, gunicorn) as other:
                    compare(ours, other)
            stop(ours)
        restart(settings, environ)


@contextmanager
def prepared(name: str) -> Iterator[tuple[Settings, Sessions, dict[str, str]]]:
    """Start a database and a Redis of their own, with one checkpoint; yield what servers and programs beside need."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as home:
        settings = Settings(home=Path(home), models=Path(home), port=0)
        with Servers.embedded(settings):
            migrate.upgrade(settings.database)
            factory = sessions(connect(settings.database, pool_size=2, application="bench"))
            checkpoints_of(factory)("demo", native_size=64)
            environ = {**os.environ, "FARM_HOME": home, "FARM_MODELS": home, "FARM_LOG_LEVEL": "error"}
            yield settings, factory, environ


@contextmanager
def serving(
    settings: Settings, environ: dict[str, str], make: Callable[[socket.socket], list[str]]
) -> Iterator[Running]:
    """Start a server on a port of its own."""
    with listen(settings) as listener:
        process = subprocess.Popen(make(listener), env=environ, pass_fds=[listener.fileno()])
        running = Running(process, address(listener))
    try:
        httpx.get(f"{running.url}/livez", timeout=60)
        yield running
    finally:
        process.terminate()
        process.wait()


def gunicorn(listener: socket.socket) -> list[str]:
    """Return the command of the server that was before."""
    return [sys.executable, "-c", GUNICORN, str(listener.fileno()), str(THREADS)]


def slow_clients(server: Running) -> None:
    """Print how long /livez and a submit take beside 600 slow clients of each kind."""
    large = httpx.post(f"{server.url}/api/v1/uploads", content=noise(), timeout=60).raise_for_status()
    reading = f"GET {large.headers['Location']} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    for kind, first in {**SLOW, "readers": reading}.items():
        with ExitStack() as open_ones:
            for _ in range(CLIENTS):
                open_ones.enter_context(server.connect(first, 4096 if kind == "readers" else 0))
            alive = worst(20, lambda: httpx.get(f"{server.url}/livez", timeout=60))
            taken = worst(10, lambda: submit(server))
        print(f"{CLIENTS} slow clients, {kind}: /livez {alive:.3f} s, submit {taken:.3f} s at most", flush=True)


def noise() -> bytes:
    """Return a picture of 6 MB."""
    import io  # noqa: PLC0415 - what only this figure needs

    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (1400, 1500, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def submit(server: Running) -> int:
    """Submit a job and return its id."""
    answer = httpx.post(f"{server.url}/api/v1/jobs", json={"prompt": "nothing"}, timeout=60)
    return int(answer.raise_for_status().json()["id"])


def worst(times: int, work: Callable[[], object]) -> float:
    """Return the seconds that the slowest of some tries takes."""
    return max(seconds(work) for _ in range(times))


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def streams(server: Running, events: Events) -> None:
    """Print how late events come to 500 streams, one a second on each."""
    jobs = [submit(server) for _ in range(JOBS)]
    late = sorted(asyncio.run(listen_to(server, jobs, events)))
    median, most = statistics.median(late), late[int(len(late) * 0.99)]
    print(f"{STREAMS} streams, {len(late)} events: median {median * 1000:.0f} ms, p99 {most * 1000:.0f} ms", flush=True)


async def listen_to(server: Running, jobs: list[int], events: Events) -> list[float]:
    """Return the seconds from publishing to receiving of each event in ten seconds."""
    late: list[float] = []
    opened = [asyncio.create_task(read(server, jobs[number % JOBS], late)) for number in range(STREAMS)]
    await asyncio.sleep(5)
    for _ in range(10):
        for job in jobs:
            events.publish(Progress(job, 0, 1, time.perf_counter_ns() // 1000, 1, "steps"))
            await asyncio.sleep(1 / JOBS)
    await asyncio.sleep(1)
    for task in opened:
        task.cancel()
    return late


async def read(server: Running, job: int, late: list[float]) -> None:
    """Note how late each event of a stream is: its step is when it was published."""
    reader, writer = await asyncio.open_connection(*server.place)
    writer.write(f"GET /api/v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    try:
        while line := await reader.readline():
            if line.startswith(b"data: ") and "step" in (data := json.loads(line[6:])):
                late.append(time.perf_counter() - data["step"] / 1e6)
    finally:
        writer.close()


def compare(ours: Running, other: Running) -> None:
    """Print throughput and uploads beside the other server's, in turns."""
    tried: dict[str, Callable[[Running], float]] = {
        "small requests a second": lambda server: throughput(server, "/openapi.json"),
        "lists of jobs a second": lambda server: throughput(server, "/api/v1/jobs?limit=5"),
        "uploads of 32 MiB a second": upload,
    }
    for name, measure in tried.items():
        pairs = [(measure(ours), measure(other)) for _ in range(7)]
        ratio = statistics.median(mine / its for mine, its in pairs)
        mine, its = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(f"{name}: {mine:.1f}, gunicorn {its:.1f}; median of ratios {ratio:.2f}", flush=True)


def throughput(server: Running, path: str, for_seconds: float = 3, clients: int = 8) -> float:
    """Return the requests a second that some clients get answered on kept connections."""
    done, end = [0] * clients, time.monotonic() + for_seconds

    def ask(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            while time.monotonic() < end:
                client.get(path).raise_for_status()
                done[number] += 1

    threads = [threading.Thread(target=ask, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / for_seconds


def upload(server: Running) -> float:
    """Return how many bodies of 32 MiB a second are read: of no picture, so that nothing else takes time."""
    body = bytes(32 * 2**20)
    return 3 / sum(
        seconds(lambda: httpx.post(f"{server.url}/api/v1/uploads", content=body, timeout=60)) for _ in range(3)
    )


def stop(server: Running) -> None:
    """Print how long a stop takes with a hundred streams open."""
    job = submit(server)
    ask = f"GET /api/v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with ExitStack() as open_ones:
        for _ in range(100):
            open_ones.enter_context(server.connect(ask)).recv(1)
        server.process.terminate()
        took = seconds(server.process.wait)
    print(f"stop with 100 streams: {took:.2f} s, status {server.process.returncode}", flush=True)


def restart(settings: Settings, environ: dict[str, str]) -> None:
    """Print how many requests fail while the server is stopped and started three times on one socket."""
    failed, longest, stopped, is_over = [], [0.0], [], threading.Event()
    with listen(settings) as listener:
        url = address(listener)

        def ask() -> None:
            for _ in count():
                if is_over.is_set():
                    return
                try:
                    took = seconds(lambda: httpx.get(f"{url}/api/v1/jobs?limit=1", timeout=60).raise_for_status())
                    longest[0] = max(longest[0], took)
                except httpx.HTTPError as error:
                    failed.append(repr(error))

        process = subprocess.Popen(command(listener), env=environ, pass_fds=[listener.fileno()])
        asking = threading.Thread(target=ask)
        asking.start()
        for _ in range(3):
            httpx.get(f"{url}/livez", timeout=60)
            time.sleep(2)
            process.terminate()
            stopped.append(seconds(process.wait))
            process = subprocess.Popen(command(listener), env=environ, pass_fds=[listener.fileno()])
        httpx.get(f"{url}/livez", timeout=60)
        is_over.set()
        asking.join()
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
    print(
        f"three restarts: {len(failed)} requests failed {failed[:3]}, the longest took {longest[0]:.1f} s, "
        f"the longest stop {max(stopped):.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
