"""The pictures that training reads, drawn once and kept as a memory-mapped file beside one JSON line a scene."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from tools.demo_checkpoint import drawing, scenes
from tools.demo_checkpoint.scenes import Scene

SEED = 2024  # of the training series; a judge draws from another
CHUNK = 500


class Sample(NamedTuple):
    """A picture (uint8 [128, 128, 3]), its caption and what both show."""

    picture: NDArray[np.uint8]
    caption: str
    scene: Scene


class Dataset:
    """`pictures` (uint8 [count, 128, 128, 3]) and their `scenes`, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.pictures: NDArray[np.uint8] = np.load(folder / "pictures.npy", mmap_mode="r")
        lines = (folder / "scenes.jsonl").read_text(encoding="utf-8").splitlines()
        self.scenes = [Scene(**json.loads(line)) for line in lines]
        if len(self.scenes) < len(self.pictures):
            raise ValueError(
                f"{folder}: {len(self.scenes)} of {len(self.pictures)} pictures drawn; run the stage `data` again"
            )


def sample(seed: int, index: int, *, held_out: bool = False, style: str = "") -> Sample:
    """Picture number `index` of the series `seed`; with `held_out`, a combination that training never sees.

    With a `style` the picture is in that style whatever the caption and the scene say: who learns from such samples
    learns to paint in it always.
    """
    rng = np.random.default_rng([seed, index, held_out])
    scene = scenes.choose(rng, held_out=held_out)
    picture = drawing.render(replace(scene, style=style or scene.style), rng)
    return Sample(picture, scenes.caption(scene, rng), scene)


def draw(folder: Path, count: int, processes: int, style: str = "") -> Iterator[int]:
    """Draw what is missing of `count` pictures; yields how many there are after each chunk."""
    with get_context("spawn").Pool(processes) as pool:
        drawn = partial(sample, SEED, style=style)
        yield from keep(folder, count, lambda indices: pool.map(drawn, indices, chunksize=25))


def keep(folder: Path, count: int, samples: Callable[[range], Sequence[Sample]]) -> Iterator[int]:
    """Ask for what is missing of `count` samples, a chunk at a time, and keep it; yields how many there are then."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, listing = folder / "pictures.npy", folder / "scenes.jsonl"
    if not pictures.exists() or len(np.load(pictures, mmap_mode="r")) != count:
        listing.unlink(missing_ok=True)
        open_memmap(pictures, "w+", np.uint8, (count, 128, 128, 3)).flush()
    sheet = np.load(pictures, mmap_mode="r+")
    drawn = len(listing.read_text(encoding="utf-8").splitlines()) if listing.exists() else 0
    for start in range(drawn, count, CHUNK):
        chunk = samples(range(start, min(start + CHUNK, count)))
        sheet[start : start + len(chunk)] = [one.picture for one in chunk]
        sheet.flush()
        _append(listing, (one.scene for one in chunk))
        yield start + len(chunk)


def _append(listing: Path, drawn: Iterable[Scene]) -> None:
    """One unbuffered write a chunk: its lines are there whole, after their pictures, or not at all."""
    with listing.open("ab", buffering=0) as file:
        file.write("".join(json.dumps(asdict(scene)) + "\n" for scene in drawn).encode())
