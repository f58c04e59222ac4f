"""What company does to pictures and to their time: a random mix of jobs, each of them alone and all together.

Samplers, steps, guidance, sizes, image to image, inpainting, hires fix and tiling are drawn from a seed. Each picture
is rendered by itself, then all of them with a number in flight, and the two are held against each other. Of several
checkpoints, of any architectures, the pictures take each in turn.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from PIL import Image

from shared.media.arrays import Mask, Pixels
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS
from shared.params.size_conditioning import Crop, OriginalSize, TargetSize
from shared.params.upscalers import UPSCALERS
from tests.support.conditioned import with_empty_caches
from worker.engine.architectures.conditioning import Adapter
from worker.engine.architectures.weights import Weights
from worker.engine.devices import default_dtype, device
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import ControlInput, IPAdapterInput, Kit
from worker.engine.pipelines.render import render

CHECKPOINT: Final = Path(__file__).parents[1] / "models" / "Stable-diffusion" / "scenes-v1.safetensors"
NAME: Final = "bench"  # of the checkpoint of a mix
KINDS: Final = ("text to image", "image to image", "inpainting", "hires")
PROMPTS: Final = (
    "", "a red sailboat on the sea at sunset", "snow AND mountains at night :0.6", "[palm:pine:0.5] in a desert",
    "(pyramids:1.3) in a [desert|meadow] at noon, photo", "moon, " * 90,
)  # fmt: skip
MOST_OFF: Final = 8  # of 255, anywhere
SHARE_OFF: Final = 0.001  # of values, by more than 1 of 255
# Half precision rounds by how many rows share a call, and ancestral samplers carry that on: decibels of PSNR.
HALF_LEAST: Final = 20.0  # of any picture
HALF_MEDIAN: Final = 30.0  # of half of the pictures


@dataclass(frozen=True)
class Job:
    """One picture of the mix, of one kind, with what it starts from."""

    kind: str
    params: RenderParams
    source: Pixels | None = None
    mask: Mask | None = None
    adapters: Mapping[str, Adapter] = field(default_factory=dict)  # that its prompts name
    controls: tuple[ControlInput, ...] = ()
    ip_adapters: tuple[IPAdapterInput, ...] = ()


@dataclass(frozen=True)
class Distance:
    """How far two pictures are apart."""

    share: float  # of values that differ by more than 1 of 255
    largest: int
    psnr: float  # decibels; infinite where they are identical

    @property
    def is_same(self) -> bool:
        """Whether the promise of one picture alone and in company holds."""
        return self.share <= SHARE_OFF and self.largest <= MOST_OFF


class Rendering(NamedTuple):
    """Some pictures, the rows of each call of a U-Net, and the seconds that they took."""

    pictures: list[Pixels]
    rows: list[int]
    wall: float  # seconds by the clock
    host: float  # seconds of the host's cores, which other work beside it changes little

    def summary(self) -> str:
        """Return the figures in one line."""
        return (
            f"{self.wall:.1f} s ({self.host:.1f} s of cores), {len(self.pictures) / self.wall:.2f} pictures a second, "
            f"{statistics.mean(self.rows):.2f} rows in a call of a U-Net"
        )


def mix(count: int, seed: int, *, sides: Sequence[int], most_steps: int = 40) -> list[Job]:
    """Return `count` jobs drawn from `seed`, all kinds and samplers in turn; every eighth one is exact."""
    chance = random.Random(seed)
    return [_job(chance, index, sides, most_steps) for index in range(count)]


def _job(chance: random.Random, index: int, sides: Sequence[int], most_steps: int) -> Job:
    kind, sampler = KINDS[index % len(KINDS)], list(SAMPLERS)[index % len(SAMPLERS)]
    steps = chance.randint(min(5, most_steps), most_steps)
    fields: dict[str, Any] = {
        "prompt": chance.choice(PROMPTS),
        "negative_prompt": chance.choice(("", "house", "clouds, " * 60)),
        "checkpoint": NAME,
        "width": chance.choice(sides),
        "height": chance.choice(sides),
        "steps": steps,
        "cfg_scale": chance.choice((1.0, 1.5, 4.0, 7.0, 15.0)),
        "sampler": sampler,
        "schedule": chance.choice(SAMPLERS[sampler].schedules),
        "seed": chance.randrange(2**32),
        "exact": index % 8 == 7 or SAMPLERS[sampler].is_adaptive,  # what adapts promises nothing else
        "tiling": chance.choice(("none", "none", "both", "x", "y")),
    }
    drawn = {"hires": _hires, "image to image": _over_picture, "inpainting": _over_picture}
    more = drawn[kind](chance, kind, steps) if kind in drawn else {}
    params = RenderParams.model_validate(fields | more)
    return Job(kind, params, *_pictures(chance, params))


def _hires(chance: random.Random, _: str, steps: int) -> dict[str, Any]:
    second = {"scale": 1.5, "steps": max(1, steps // 2), "upscaler": chance.choice(UPSCALERS), "denoising": 0.6}
    return {"hires": second}


def _over_picture(chance: random.Random, kind: str, _: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "picture": "source",
        "denoising": chance.choice((0.0, 0.3, 0.75, 1.0)),
        "resize_mode": chance.choice(("resize", "crop", "fill", "latent")),
        "extra_noise": chance.choice((0.0, 0.1)),
        "color_correction": chance.random() < 0.3,
    }
    if kind == "inpainting":
        options["mask"] = {
            "picture": "mask",
            "content": chance.choice(("fill", "original", "latent noise", "latent nothing")),
            "area": chance.choice(("whole picture", "only masked")),
            "padding": 8,
            "soft": chance.random() < 0.3,
        }
    return {"img2img": options}


def _pictures(chance: random.Random, params: RenderParams) -> tuple[Pixels | None, Mask | None]:
    """A picture of soft colours to start from, and a mask over a quarter of it, where `params` ask for them."""
    if params.img2img is None:
        return None, None
    width, height = chance.choice((120, 160)), chance.choice((120, 160))
    colours = np.random.default_rng(chance.randrange(2**32)).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    source = np.asarray(Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC))
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
    return source, mask if params.img2img.mask else None


def spread(jobs: Iterable[Job], checkpoints: Sequence[str], seed: int) -> list[Job]:
    """Return `jobs` with `checkpoints` in turn, CFG from 1 to 12, one to three chunks, and the sizes that SDXL sees."""
    chance = random.Random(seed)
    return [
        replace(job, params=job.params.model_copy(update=_anywhere(chance, checkpoints[place % len(checkpoints)])))
        for place, job in enumerate(jobs)
    ]


def _anywhere(chance: random.Random, checkpoint: str) -> dict[str, Any]:
    """Draw the parameters of a picture of a checkpoint of any architecture, large sides as SDXL knows them."""
    side = partial(chance.choice, (512, 768, 1024, 2048))
    return {
        "checkpoint": checkpoint,
        "prompt": chance.choice(PROMPTS[:-1]) + ", moon" * chance.choice((0, 40, 80)),
        "negative_prompt": chance.choice(("", "house", "clouds, " * 60)),
        "cfg_scale": float(chance.randint(1, 12)),
        "original_size": chance.choice((None, OriginalSize(width=side(), height=side()))),
        "crop": Crop(left=chance.choice((0, 64)), top=chance.choice((0, 128))),
        "target_size": chance.choice((None, TargetSize(width=side(), height=side()))),
        "tiling": "none",  # so that more rows can share calls
    }


def start(engine: Engine, checkpoints: Mapping[str, Weights], job: Job) -> Pixels:
    """Return the picture of `job`, as a slot of a worker asks for it."""
    beside = {"adapters": job.adapters, "controls": job.controls, "ip_adapters": job.ip_adapters}
    kit = Kit(checkpoints[job.params.checkpoint], source=job.source, mask=job.mask, **beside)  # type: ignore[arg-type]
    picture: Pixels = engine.render(render(job.params, kit), exact=job.params.exact).result()
    return picture


def together(engine: Engine, checkpoints: Mapping[str, Weights], jobs: Sequence[Job], in_flight: int) -> list[Pixels]:
    """Return the pictures of `jobs`, so many of them in flight at a time."""
    with ThreadPoolExecutor(in_flight) as slots:
        return list(slots.map(lambda job: start(engine, checkpoints, job), jobs))


@contextmanager
def rows_counted(checkpoints: Iterable[Weights]) -> Iterator[list[int]]:
    """Yield a list to which each call of one of these U-Nets within the block adds its rows."""
    rows: list[int] = []
    hooks = [
        weights.unet.register_forward_pre_hook(lambda _, given: rows.append(len(given[0]))) for weights in checkpoints
    ]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def distance(one: Pixels, other: Pixels) -> Distance:
    """Return how far two pictures of one size are apart."""
    apart = np.abs(one.astype(int) - other.astype(int))
    error = float((apart**2).mean())
    psnr = 10 * math.log10(255**2 / error) if error else math.inf
    return Distance(float((apart > 1).mean()), int(apart.max()), psnr)


def broken(jobs: Sequence[Job], distances: Sequence[Distance], dtype: torch.dtype = torch.float32) -> list[Job]:
    """Return the jobs whose pictures company has changed: an exact one must be identical, another nearly so.

    In half precision PSNR decides: a picture below HALF_LEAST is changed, and if more than half of them are below
    HALF_MEDIAN, so are all of those.
    """
    is_half = dtype != torch.float32
    others = [apart.psnr for job, apart in zip(jobs, distances, strict=True) if not job.params.exact]
    least = HALF_LEAST if not others or statistics.median(others) >= HALF_MEDIAN else HALF_MEDIAN

    def is_changed(job: Job, apart: Distance) -> bool:
        if job.params.exact:
            return apart.largest > 0
        return apart.psnr < least if is_half else not apart.is_same

    return [job for job, apart in zip(jobs, distances, strict=True) if is_changed(job, apart)]


def table(jobs: Sequence[Job], distances: Sequence[Distance]) -> str:
    """Return a line for each kind of job: how many, and the worst that company did to one."""
    kinds: dict[str, list[Distance]] = defaultdict(list)
    for job, apart in zip(jobs, distances, strict=True):
        kinds["exact" if job.params.exact else job.kind].append(apart)
    lines = [
        "| | pictures | off by more than 1/255 | largest | lowest PSNR |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, found in kinds.items():
        share, largest = max(apart.share for apart in found), max(apart.largest for apart in found)
        lines.append(f"| {kind} | {len(found)} | {share:.3%} | {largest}/255 | {min(a.psnr for a in found):.1f} dB |")
    return "\n".join(lines)


def main() -> None:
    """Render the mix, print the table and end with 1 where a picture was changed."""
    options = _parsed()
    card = device(options.card)
    dtype = default_dtype(card, options.precision)
    checkpoints = {path.stem: load.load(path, card, dtype) for path in options.checkpoints}
    engine = Engine(card)
    engine.start()
    jobs = mix(options.jobs, options.seed, sides=options.sides)
    if len(checkpoints) > 1:
        jobs = spread(jobs, list(checkpoints), options.seed)
    else:
        checkpoints = dict(zip([NAME], checkpoints.values(), strict=True))
    alone = _measured(checkpoints, lambda: [start(engine, checkpoints, job) for job in jobs])
    checkpoints = {name: with_empty_caches(one) for name, one in checkpoints.items()}  # texts too share calls then
    company = _measured(checkpoints, lambda: together(engine, checkpoints, jobs, options.in_flight))
    engine.stop()
    distances = [distance(*pair) for pair in zip(alone.pictures, company.pictures, strict=True)]
    print(table(jobs, distances))
    for what, found in (("alone", alone), (f"{options.in_flight} in flight", company)):
        print(f"{what}: {found.summary()}")
    for job in (changed := broken(jobs, distances, dtype)):
        print("changed:", job.params.model_dump_json(exclude_defaults=True))
    raise SystemExit(bool(changed))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="*", default=[CHECKPOINT])
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 96, 128, 192])
    parser.add_argument("--card", default="cpu")
    parser.add_argument("--precision", default="auto")
    return parser.parse_args()


def _measured(checkpoints: Mapping[str, Weights], make: Callable[[], list[Pixels]]) -> Rendering:
    wall, host = time.perf_counter(), time.process_time()
    with rows_counted(checkpoints.values()) as rows:
        pictures = make()
    return Rendering(pictures, rows, time.perf_counter() - wall, time.process_time() - host)


if __name__ == "__main__":
    main()
