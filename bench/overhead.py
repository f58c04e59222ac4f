"""`python -m bench.overhead`: what the farm takes for a job, against a plain loop over the same networks and pictures.

Two farms of one CPU worker each, one with eight slots and one with a single slot, the engine by itself with eight
pictures in flight, and the plain loop take turns on the same 64 pictures (128x128, 20 steps of Euler a, CFG 7, float32
or, on a card, float16, no previews, one thread). The farm's time is that of its own record: from the job's submission
to the commit of its last picture.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from cli.checkpoints import await_first
from cli.embedded import home
from client.client import Client
from shared.settings import load

PROMPT: Final = "a painting of the desert at sunset, pyramids, sun"
SEED: Final = 1000
ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
START_SECONDS: Final = 60.0
POLL_SECONDS: Final = 1.0  # the times are of the farm's own record, so asking seldom costs no accuracy

Measure = Callable[[int], float]
"""Number of pictures -> seconds."""


@contextmanager
def farm(slots: int, models: Path, card: str) -> Iterator[Measure]:
    """Yield a measure of a farm of its own, with one worker of `slots` slots on the CPU or on a card."""
    with tempfile.TemporaryDirectory(prefix="farm-") as folder:
        environ = os.environ | ONE_THREAD | {
            "FARM_HOME": folder, "FARM_MODELS": str(models), "FARM_PORT": "0",
            "FARM_GPUS": card.removeprefix("cuda:"), "FARM_PRECISION": "float32" if card == "cpu" else "float16",
            "FARM_SLOTS": str(slots), "FARM_PREVIEW_STEPS": "0", "FARM_LOG_LEVEL": "warning",
        }  # fmt: skip
        command = [sys.executable, "-m", "cli", "up", "--json"]
        up = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
        try:
            with Client(_address(Path(folder), up)) as client:
                await_first(client, load(environ))
                yield lambda pictures: _job_seconds(client, pictures)
        finally:
            up.terminate()
            up.wait(START_SECONDS)


@contextmanager
def process(module: str, checkpoint: Path, *options: str) -> Iterator[Measure]:
    """Yield a measure of a process that has loaded the checkpoint once and answers numbers of pictures with seconds."""
    command = [sys.executable, "-m", module, str(checkpoint), "--prompt", PROMPT, "--seed", str(SEED), *options]
    with subprocess.Popen(
        command, env=os.environ | ONE_THREAD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as measured:

        def measure(pictures: int) -> float:
            assert measured.stdin is not None
            assert measured.stdout is not None
            measured.stdin.write(f"{pictures}\n")
            return float(measured.stdout.readline())

        yield measure
        measured.terminate()


def _address(folder: Path, up: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and up.poll() is None:
        record = home.read_record(folder)
        if record is not None:
            return record.url
        time.sleep(0.1)
    raise SystemExit(f"The farm in {folder} did not come up.")


def _job_seconds(client: Client, pictures: int) -> float:
    """Return the seconds from the submission of one job to the commit of its last picture."""
    params = {"prompt": PROMPT, "seed": SEED, "count": pictures}
    job = client.submit(params, f"bench-{time.monotonic_ns()}")
    while job["ended_at"] is None:
        time.sleep(POLL_SECONDS)
        job = client.job(job["id"])
    if job["state"] != "succeeded":
        raise SystemExit(f"Job {job['id']} {job['state']}: {job['images'][0]['reason']}")
    ends = [datetime.fromisoformat(image["ended_at"]) for image in job["images"]]
    return (max(ends) - datetime.fromisoformat(job["created_at"])).total_seconds()


def compare(measures: dict[str, Measure], pictures: int, runs: int) -> dict[str, list[float]]:
    """Return the seconds of each, run after run in turn, after a warm-up that is not counted."""
    for measure in measures.values():
        measure(min(pictures, 8))
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(runs):
        for name, measure in measures.items():
            seconds[name].append(measure(pictures))
    return seconds


def report(seconds: dict[str, list[float]], pictures: int) -> None:
    """Print medians, and ratios to the plain loop of the same run."""
    base = seconds["plain loop"]
    print(f"{pictures} pictures, {len(base)} alternating runs, one thread")
    print(f"{'':12} {'median s':>9} {'a picture':>10} {'of plain':>9}   each run's ratio")
    for name, times in seconds.items():
        ratios = [own / plain_time for own, plain_time in zip(times, base, strict=True)]
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        middle = statistics.median(times)
        print(f"{name:12} {middle:9.2f} {middle / pictures:9.3f}s {statistics.median(ratios):9.2f}   {each}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("models/Stable-diffusion/scenes-v1.safetensors"))
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--card", default="cpu", help="cpu, or cuda:0: then in float16")
    options = parser.parse_args()
    on = ("--card", options.card)
    with ExitStack() as stack, tempfile.TemporaryDirectory() as models:
        for file in options.checkpoint.parent.glob(f"{options.checkpoint.stem}.*"):
            (Path(models) / file.name).symlink_to(file.resolve())
        measures = {"plain loop": stack.enter_context(process("bench.plain", options.checkpoint, *on))}
        in_flight = ("--in-flight", "8", *on)
        measures["engine, 8"] = stack.enter_context(process("bench.engine", options.checkpoint, *in_flight))
        for slots in (8, 1):
            measures[f"farm, {slots}"] = stack.enter_context(farm(slots, Path(models), options.card))
        report(compare(measures, options.pictures, options.runs), options.pictures)


if __name__ == "__main__":
    main()
