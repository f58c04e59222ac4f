"""The pictures that training reads, drawn once and kept as a memory-mapped file beside one JSON line a scene."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import scenes
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

SEED = 2024  # of the training series; a judge draws from another
CHUNK = 500


class Dataset:
    """`pictures` (uint8 [count, 128, 128, 3]) and their `scenes`, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.pictures: NDArray[np.uint8] = np.load(folder / "pictures.npy", mmap_mode="r")
        lines = (folder / "scenes.jsonl").read_text(encoding="utf-8").splitlines()
        self.scenes = [scenes.Scene(**json.loads(line)) for line in lines]
        if len(self.scenes) < len(self.pictures):
            raise ValueError(
                f"{folder}: {len(self.scenes)} of {len(self.pictures)} pictures drawn; run the stage `data` again"
            )


def draw(folder: Path, count: int, processes: int) -> Iterator[int]:
    """Draw what is missing of `count` pictures; yields how many there are after each chunk."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, listing = folder / "pictures.npy", folder / "scenes.jsonl"
    if not pictures.exists() or len(np.load(pictures, mmap_mode="r")) != count:
        listing.unlink(missing_ok=True)
        open_memmap(pictures, "w+", np.uint8, (count, 128, 128, 3)).flush()
    sheet = np.load(pictures, mmap_mode="r+")
    drawn = len(listing.read_text(encoding="utf-8").splitlines()) if listing.exists() else 0
    with get_context("spawn").Pool(processes) as pool:
        for start in range(drawn, count, CHUNK):
            indices = range(start, min(start + CHUNK, count))
            samples = pool.map(partial(scenes.sample, SEED), indices, chunksize=25)
            sheet[indices.start : indices.stop] = [sample.picture for sample in samples]
            sheet.flush()
            _append(listing, (sample.scene for sample in samples))
            yield indices.stop


def _append(listing: Path, drawn: Iterable[scenes.Scene]) -> None:
    """One write a chunk: a line is there only when its picture is."""
    with listing.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(asdict(scene)) + "\n" for scene in drawn))
