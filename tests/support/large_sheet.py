"""`python -m tests.support.large_sheet FOLDER KIND`: draws a sheet of 1,000 cells, and prints what it took as JSON."""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from shared.db.states import ImageState
from shared.media.storage import Storage, key
from shared.params.job_spec import Axis, AxisValue, JobSpec, changed
from shared.params.render import RenderParams
from shared.queue.queries import ImageView, JobView
from shared.sheets.contact_sheet import draw
from shared.sheets.pictures import CellPictures

ROWS, COLUMNS, SIDE = 25, 40, 512
NOW = datetime(2026, 11, 30, tzinfo=UTC)


def pixels(kind: str, index: int) -> np.ndarray:
    """Return a plain picture, or one that no file format makes smaller."""
    if kind == "noise":
        return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return np.full((SIDE, SIDE, 3), (index % 256, 106, 75), np.uint8)


def store(storage: Storage, kind: str) -> None:
    """Store the thumbnails of a job 1, as workers do: so many cells are too small for anything larger."""
    thumbnails = []
    for index in range(50):
        out = BytesIO()
        Image.fromarray(pixels(kind, index)).resize((256, 256)).save(out, "WEBP")
        thumbnails.append(out.getvalue())
    for index in range(ROWS * COLUMNS):
        storage.put(key(1, index, 1, "thumbnail"), thumbnails[index % len(thumbnails)])


def job() -> JobView:
    """Return a job of two axes whose images have all succeeded."""
    axes = [
        Axis(field=field, values=tuple(AxisValue(title=str(number)) for number in range(1, count + 1)))
        for field, count in (("steps", ROWS), ("seed", COLUMNS))
    ]
    params = RenderParams(prompt="海边的日落 " * 40, checkpoint="demo", width=SIDE, height=SIDE, count=ROWS * COLUMNS)
    changes = {at: {"steps": at // COLUMNS + 1, "seed": at % COLUMNS + 1} for at in range(ROWS * COLUMNS)}
    read = {at: changed(params, change) for at, change in changes.items()}
    images = [
        ImageView(
            id=at, index=at, state=ImageState.SUCCEEDED, seed=1, attempt=1, strikes=0, worker="", reason=None,
            queued_at=NOW, expires_at=None, started_at=NOW, ended_at=NOW, bytes=1, changes=changes[at],
        )
        for at in changes
    ]  # fmt: skip
    return JobView(
        id=1, owner="ann", state=ImageState.SUCCEEDED, spec=JobSpec(params, tuple(axes), changes, read), checkpoint="c",
        created_at=NOW, started_at=NOW, ended_at=NOW, next=None,
        counts={ImageState.SUCCEEDED: len(images)}, images=tuple(images), position=None, pool="default",
        priority=0, urgent=False, expires_at=None,
    )  # fmt: skip


def main(folder: str, kind: str) -> None:
    storage = Storage(folder)
    if not (Path(folder) / "jobs").exists():
        store(storage, kind)
        return
    began = time.monotonic()
    with CellPictures(2**22) as pictures:
        sheet = draw(job(), storage, pictures)
    seconds = time.monotonic() - began
    # Its own peak as getrusage knows it begins with what the process had that started this one.
    own = int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
    peaks = [own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]
    storage.put("sheet.png", sheet.png)
    told = {"width": sheet.width, "height": sheet.height, "bytes": len(sheet.png), "seconds": round(seconds, 1)}
    sys.stdout.write(json.dumps(told | {"peak_megabytes": round(sum(peaks) / 1024)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
