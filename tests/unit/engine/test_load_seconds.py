"""A load beside 16 pictures in flight, by the model of time of an H100: what it takes, and how late a step comes.

What Python takes to build the networks is not in it.

`python -m tests.unit.engine.test_load_seconds` prints the table.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import torch

from tests.support import card_time, pretended_card
from tests.support.card_ledger import Ledger
from tests.support.card_time import Clock, Turns
from tests.support.checkpoints import write_tiny
from worker.engine import devices, transfers
from worker.engine.devices import Device
from worker.engine.loading import layouts, upload
from worker.engine.loading import load as checkpoints
from worker.engine.loading.converted import Converted
from worker.engine.loading.host_cache import HostCache

TURN: Final = 0.121  # seconds of a U-Net call of 32 rows: 16 pictures, with guidance
WEIGHTS: Final = 1133  # tensors of Stable Diffusion 1.5, whose part the tiny checkpoint plays
BYTES: Final = 2.13e9  # of them, in half precision
READ: Final = 6e9  # bytes a second of the host, from the page cache into pinned memory
HALF: Final = torch.float16


class Taken(NamedTuple):
    """Seconds of a load where the card is idle and where it is busy, and how late the latest step of others was."""

    idle: float
    busy: float
    stall: float


def load_in_copies(path: Path, card: Device) -> None:
    """Load as it was done at first: a blocking copy of pageable memory for every tensor, among the engine's work."""
    for part in layouts.read(path).networks.values():
        for weight in part.weights.values():
            weight.to(card.torch, HALF, copy=True)


def load_from_file(path: Path, card: Device) -> None:
    with transfers.own_stream(card):
        checkpoints.load(path, card, HALF)


def load_from_host(path: Path, kept: Converted, card: Device) -> None:
    with transfers.own_stream(card):
        checkpoints.load_cached(path, kept, card)


def kept_on_host(path: Path, card: Device) -> Converted:
    cache, found = HostCache(2**40, card), list[Converted]()
    checkpoints.load(path, card, HALF, on_converted=found.append)
    list(cache.keep(("tiny", HALF), lambda: found[0]))
    kept = cache.get(("tiny", HALF))
    assert kept
    return kept


@contextmanager
def reading(clock: Clock, scale: float) -> Iterator[None]:
    """Within the block it takes the host time to fill chunks."""

    def timed(*given: object) -> Iterator[upload.Piece]:
        for piece in plain(*given):
            clock.spend(scale * piece.source.nbytes / READ)
            yield piece

    plain, upload.pieces = upload.pieces, timed
    try:
        yield
    finally:
        upload.pieces = plain


def taken(ledger: Ledger, scale: float, load: Callable[[], object]) -> Taken:
    """Return what `load` takes, of a checkpoint that stands for one `scale` times as large."""
    with card_time.running(ledger, scale=scale) as clock, reading(clock, scale):
        load()
        idle = clock.now()
    turns = Turns(TURN)
    with card_time.running(ledger, busy=turns, scale=scale) as clock, reading(clock, scale):
        load()
        busy = clock.now()
        clock.spend(10 * TURN)  # what comes behind it is held up as well, if anything is
        clock.mark(card_time.DEFAULT_STREAM)
        return Taken(idle, busy, turns.stall())


def table(ledger: Ledger, path: Path) -> dict[str, Taken]:
    """Return what each way to load takes, for Stable Diffusion 1.5."""
    card = devices.device("cuda:0")
    kept = kept_on_host(path, card)
    scale = BYTES / sum(layout.bytes for layout in kept.layouts.values())
    copies = taken(ledger, scale, partial(load_in_copies, path, card))
    more = WEIGHTS / sum(len(layout.places) for layout in kept.layouts.values())
    return {
        "a blocking copy a tensor": Taken(copies.idle, copies.busy * more, copies.stall),
        "from the file": taken(ledger, scale, partial(load_from_file, path, card)),
        "from the host's memory": taken(ledger, scale, partial(load_from_host, path, kept, card)),
    }


def test_a_load_beside_16_pictures_takes_no_more_than_twice_an_idle_one(pretended: Ledger, tiny_path: Path) -> None:
    pretended.clear()
    took = table(pretended, tiny_path)
    before = took.pop("a blocking copy a tensor")
    assert before.busy == pytest.approx(4.6 * 60, rel=0.05)
    assert before.idle < 1
    for way, after in took.items():
        assert after.busy <= 2 * after.idle, way
        assert after.stall <= 0.1 * TURN, way
    assert took["from the host's memory"].idle < 0.1
    assert pretended.errors == []


def main() -> None:
    with pretended_card.installed() as ledger, tempfile.TemporaryDirectory() as folder:
        rows = table(ledger, write_tiny(Path(folder) / "tiny.safetensors"))
    lines = [f"{'seconds of a load':28}{'idle':>10}{'beside 16':>12}{'stall of a step':>18}"]
    lines += [f"{way:28}{one.idle:10.3f}{one.busy:12.3f}{one.stall:18.4f}" for way, one in rows.items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
