"""`python -m bench.http`: polls and submissions of the API beside those of a bare endpoint (`bench.bare`), in turns.

Both stand behind the same server, with the same threads and the same PostgreSQL. Some clients on kept connections ask
with a key, as clients do. Afterwards 500 streams listen to the farm (`bench.server`).
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from api.socket import command
from bench.server import Running, prepared, serving, streams
from shared.db.farm import farm_id
from shared.messaging.events import Events

CLIENTS: Final = 8
ROUNDS: Final = 7
SECONDS: Final = 3.0  # of one measurement
IMAGES: Final = 4  # of a job
KEY: Final = "a-long-key-of-the-bench"
JOBS: Final = "/api/v1/jobs"
PROMPT: Final = "a photo of the sea at night, moon, red sailboat"
BODY: Final = json.dumps({"prompt": PROMPT, "width": 512, "height": 512, "seed": 7, "count": IMAGES})


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    given = parser.parse_args()
    with prepared("http") as (settings, factory, environ):
        environ |= {"FARM_DATABASE_URL": settings.database.replace("+psycopg", "", 1)}
        keys = {"FARM_API_KEYS": f"ann:{KEY}", "FARM_REQUESTS_PER_MINUTE": "0"}  # one client asks as fast as it can
        with (
            serving(settings, environ | keys, command) as ours,
            serving(settings, environ, bare) as other,
        ):
            compare(ours, other, given.rounds, given.seconds)
        with serving(settings, environ, command) as ours:
            streams(ours, Events(settings.redis, farm_id(factory)))


def bare(listener: socket.socket) -> list[str]:
    """Return the command of the bare endpoint."""
    return [sys.executable, "-m", "bench.bare", "--fd", str(listener.fileno())]


def compare(ours: Running, other: Running, rounds: int, seconds: float) -> None:
    """Print how many requests a second each answers, and the median of the ratios of all rounds."""
    tried: dict[str, Callable[[Running], float]] = {
        "polls of a job that waits": lambda server: rate(server, "GET", of_each(submitted, server), seconds),
        "polls of a job that has ended": lambda server: rate(server, "GET", of_each(ended, server), seconds),
        "submissions": lambda server: rate(server, "POST", [JOBS] * CLIENTS, seconds),
    }
    for name, measure in tried.items():
        measure(ours), measure(other)  # each has its plans and its connections then
        pairs = [(measure(ours), measure(other)) for _ in range(rounds)]
        ratios = [mine / its for mine, its in pairs]
        mine, its = (statistics.median(values) for values in zip(*pairs, strict=True))
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        median = statistics.median(ratios)
        print(f"{name}: {mine:.0f} a second, bare {its:.0f}; median of ratios {median:.2f} ({each})", flush=True)


def of_each(made: Callable[[Running], str], server: Running) -> list[str]:
    """Return the path of a job of its own for each client."""
    return [made(server) for _ in range(CLIENTS)]


def submitted(server: Running) -> str:
    """Submit a job and return its path."""
    connection = http.client.HTTPConnection(*server.place, timeout=30)
    return f"{JOBS}/{asked(connection, 'POST', JOBS)['id']}"


def ended(server: Running) -> str:
    """Submit a job, end it, and return its path."""
    path = submitted(server)
    asked(http.client.HTTPConnection(*server.place, timeout=30), "POST", f"{path}/cancel")
    return path


def rate(server: Running, method: str, paths: list[str], seconds: float) -> float:
    """Return the requests a second that the clients, each for a path of its own, get answered on kept connections."""
    done, end = [0] * CLIENTS, time.monotonic() + seconds

    def ask(number: int) -> None:
        connection = http.client.HTTPConnection(*server.place, timeout=30)
        while time.monotonic() < end:
            asked(connection, method, paths[number])
            done[number] += 1
        connection.close()

    threads = [threading.Thread(target=ask, args=[number]) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


def asked(connection: http.client.HTTPConnection, method: str, path: str) -> dict[str, int]:
    """Return the JSON of an answer. Raises RuntimeError if it is none of a success."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    connection.request(method, path, BODY if method == "POST" else None, headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status >= http.client.BAD_REQUEST:
        raise RuntimeError(f"{method} {path}: {answer.status} {body[:500]!r}")
    found: dict[str, int] = json.loads(body) if method == "POST" else {}
    return found


if __name__ == "__main__":
    main()
