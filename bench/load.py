"""`python -m bench.load`: what a full-size SDXL file takes of the host until it is recorded, and until it is loaded.

The file holds a true header and holes in the place of its 6.9 GB of weights in float16. Each phase runs in a process of
its own. Seconds are those of a processor, which other work beside it changes little; the card is a pretended one
without values, whose time says nothing.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Event, Thread
from typing import Final, NamedTuple

import torch

from shared.models import hashing
from tests.support import full_size, pretended_card, sparse_files
from worker.engine import devices
from worker.engine.loading import inspect, layouts, load, networks
from worker.engine.loading.host_cache import HostCache

LIMIT_SECONDS: Final = 600.0  # by the clock, of a phase
_SAMPLE_SECONDS: Final = 0.01
_HALF: Final = torch.float16


class Taken(NamedTuple):
    """What a phase takes: seconds of a processor, and the most memory above what the process had before, in bytes."""

    seconds: float
    anonymous: int
    mapped: int  # pages of the file, which stay in the system's cache and which it reclaims if it needs room


Phase = Callable[[Path], object]


def write(folder: Path) -> Path:
    """Write the file, which takes less than 1 MB of the disk."""
    return sparse_files.write(folder / "sdxl.safetensors", full_size.original_tensors("sdxl", _HALF))


def taken(phase: str, path: Path) -> Taken:
    """Return what a phase takes of a process of its own. Raises multiprocessing.TimeoutError after LIMIT_SECONDS."""
    with multiprocessing.get_context("spawn").Pool(1) as process:  # it is killed in the end
        return process.apply_async(_measured, (phase, path)).get(LIMIT_SECONDS)


def _measured(name: str, path: Path) -> Taken:
    load.prepare()
    prepare, phase = PHASES[name]
    with prepare():
        before, peak, over = _resident(), [0, 0], Event()
        watch = Thread(target=_watch, args=(peak, over))
        watch.start()
        begun = time.process_time()
        try:
            kept = phase(path)
            seconds = time.process_time() - begun
        finally:
            over.set()
            watch.join()
        del kept
    return Taken(seconds, *(most - least for most, least in zip(peak, before, strict=True)))


def _watch(peak: list[int], over: Event) -> None:
    while True:
        peak[:] = map(max, peak, _resident())
        if over.wait(_SAMPLE_SECONDS):
            return


def _resident() -> tuple[int, int]:
    """Return how much of this process is in memory: its own, and pages of files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kibibytes = {
        name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "Rss" in name
    }
    return 1024 * kibibytes["RssAnon"], 1024 * kibibytes["RssFile"]


@contextmanager
def _card() -> Iterator[None]:
    with pretended_card.installed(inner="meta", capacity=2**50):
        yield


def _to_host_cache(path: Path) -> HostCache:
    card = devices.device("cuda:0")
    cache = HostCache(2**40, card)
    for _ in load.prefetch(path, card, _HALF, cache, ("sdxl", _HALF)):
        pass
    return cache


WITHOUT_WEIGHTS: Final[Mapping[str, Phase]] = {
    "hash it": hashing.sha256,
    "recognise it": inspect.inspect,
    "read its header and map its weights": layouts.read,
    "build its networks on the meta device": lambda path: networks.build(layouts.read(path, "meta")),
}
"""The phases that keep none of the file's weights in memory."""
PHASES: Final[Mapping[str, tuple[Callable[[], AbstractContextManager[object]], Phase]]] = {
    **{phase: (nullcontext, function) for phase, function in WITHOUT_WEIGHTS.items()},
    "load it to a card in float16": (_card, lambda path: load.load(path, devices.device("cuda:0"), _HALF)),
    "cache it for a card in float16": (_card, _to_host_cache),
    "load it to a CPU in float16": (nullcontext, lambda path: load.load(path, devices.device("cpu"), _HALF)),
    "load it to a CPU in float32": (nullcontext, lambda path: load.load(path, devices.device("cpu"), torch.float32)),
}


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="bench-load-") as folder:
        path = write(Path(folder))
        size = path.stat().st_size
        sys.stdout.write(
            f"| {size / 1e9:.2f} GB | seconds | own memory, of its size | mapped |\n| --- | --- | --- | --- |\n"
        )
        for phase in PHASES:
            took = taken(phase, path)
            memory = f"{took.anonymous / size:.2f} | {took.mapped / size:.2f}"
            sys.stdout.write(f"| {phase} | {took.seconds:.1f} | {memory} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
