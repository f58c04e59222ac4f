"""From the submission of a picture to its first step, on a farm with nothing to do: over HTTP, as people submit."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from api.socket import address, command, listen
from bench.queue_ways import Way, until, working
from shared.settings import load

LONGEST_PAUSE_SECONDS: Final = 0.3  # between two submissions: of no rhythm with whatever the farm does now and then
POLL_SECONDS: Final = 0.002


def measure(way: Way, environ: Mapping[str, str], starts: Path, pictures: int) -> list[float]:
    """Return the seconds from each request to the card being asked for its picture, in order."""
    starts.touch()
    with _api(os.environ | environ) as client, working(way) as processes:
        until(lambda: client.get("/api/v1/checkpoints").json()["checkpoints"] != [], "a checkpoint", processes)
        _one(client, starts, 0)
        return sorted(_one(client, starts, seed) for seed in range(1, pictures + 1))


@contextmanager
def _api(environ: Mapping[str, str]) -> Iterator[httpx.Client]:
    with listen(load(environ)) as listener:
        process = subprocess.Popen(command(listener), env=environ, pass_fds=[listener.fileno()])
        url = address(listener)
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


def _one(client: httpx.Client, starts: Path, seed: int) -> float:
    time.sleep(random.Random(seed).uniform(0, LONGEST_PAUSE_SECONDS))
    body = {"prompt": "nothing", "width": 64, "height": 64, "steps": 1, "seed": seed}
    asked = time.time()
    job = client.post("/api/v1/jobs", json=body).raise_for_status().json()["id"]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for line in starts.read_text().splitlines()[-2:]:
            started, at = line.split()
            if int(started) == job:
                return float(at) - asked
        time.sleep(POLL_SECONDS)
    raise SystemExit(f"Job {job} did not start.")
