"""What a part is given: the card, the files, the sizes, and a place to tell what it finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.card.measures import GATES, Measure
from worker.engine import devices
from worker.engine.devices import Device

Message = str | Measure
"""Receives the name of a running measure, or a result."""


TIGHT: Final = "a tight card"  # so small that it must run out of memory


@dataclass(frozen=True)
class Scale:
    """How large things are: as on a card in earnest, or so small that the pretended one is done in seconds."""

    side: int  # pixels: the full-size checkpoint's own
    demo_side: int
    steps: int
    seconds: float  # that one measure of speed goes on for
    repeats: int  # of what is timed by itself
    in_flight: tuple[int, ...]
    flight: int  # pictures beside which other things are measured
    jobs: int  # of the mix
    job_sides: tuple[int, ...]
    job_steps: int
    exact: int  # pictures that are held against themselves
    rows: tuple[int, ...]
    sides: tuple[int, ...]
    cycles: int  # of loads and evictions
    free_turns: int  # in which an engine learns what does not fit
    larger: float  # times the side, of the picture whose VAE wants more than a small card has
    rooms: Mapping[str, int]  # cards that are too small: bytes beside what the weights take
    product: int  # side of the matrices
    copy_bytes: int
    flops_a_row: float = 0.0  # of a U-Net call at `side`
    flops_a_decode: float = 0.0


FULL: Final = Scale(
    side=512, demo_side=128, steps=20, seconds=6.0, repeats=5, in_flight=(1, 2, 4, 8, 16, 24), flight=16,
    jobs=64, job_sides=(64, 96, 128, 192), job_steps=30, exact=3,
    rows=(2, 8, 16, 32), sides=(512, 768, 1024), cycles=10,
    free_turns=3, larger=2.0, rooms={"a card of 8 GB": 6 * 2**30, TIGHT: 5 * 2**28},
    product=8192, copy_bytes=2**30, flops_a_row=0.803e12, flops_a_decode=2.51e12,
)  # fmt: skip
TINY: Final = Scale(
    side=64, demo_side=64, steps=2, seconds=0.1, repeats=1, in_flight=(1, 2), flight=2,
    jobs=4, job_sides=(64,), job_steps=2, exact=1,
    rows=(2, 4), sides=(64,), cycles=1,
    free_turns=10, larger=4.5, rooms={TIGHT: 24 * 2**20},  # only a latent of more than 32 cells can be cut
    product=64, copy_bytes=2**16,
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What all parts of a run have in common."""

    card: str
    scratch: Path  # where the checkpoints are written, in memory if there is room
    demo: Path  # the demo checkpoint: .safetensors or .safetensors.xz
    log: Path  # what the engine says on the way
    pretends: bool = False

    @property
    def scale(self) -> Scale:
        return TINY if self.pretends else FULL


@dataclass(frozen=True)
class Bench:
    """One part at work."""

    setting: Setting
    part: int
    earlier: Mapping[str, float]  # what was measured before, by name
    deadline: float  # on the machine's monotonic clock
    tell: Callable[[Message], object]

    @property
    def scale(self) -> Scale:
        return self.setting.scale

    @property
    def card(self) -> Device:
        return devices.device(self.setting.card)

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def now(self, what: str) -> None:
        """Say what is measured from now on."""
        self.tell(what)

    def note(self, name: str, value: float | str, unit: str = "", **more: float | None) -> None:
        """Report a measure that has no target."""
        self.tell(Measure(self.part, name, value, unit, **more))

    def at_least(self, bound: float, name: str, value: float, unit: str = "", **more: float | None) -> None:
        """Report a measure that is to be `bound` or more."""
        self._bounded("≥", value >= bound, bound, Measure(self.part, name, value, unit, **more))

    def at_most(self, bound: float, name: str, value: float, unit: str = "", **more: float | None) -> None:
        """Report a measure that is to be `bound` or less."""
        self._bounded("≤", value <= bound, bound, Measure(self.part, name, value, unit, **more))

    def check(self, name: str, is_ok: bool, value: str, target: str) -> None:  # noqa: FBT001 - what is checked
        """Report whether something is as it should be."""
        self.tell(Measure(self.part, name, value, target=target, is_ok=is_ok))

    def share(self, of: str, rate: float) -> float | None:
        """Return `rate` as a share of what the machine's part measured under the name `of`."""
        return rate / self.earlier[of] if self.earlier.get(of) else None

    def _bounded(self, sign: str, is_ok: bool, bound: float, measure: Measure) -> None:  # noqa: FBT001
        target = f"{sign} {bound:.4g}{f' {measure.unit}' if measure.unit else ''}"
        is_speed = self.part not in GATES  # of which a pretended card says nothing
        self.tell(replace(measure, target=target, is_ok=None if is_speed and self.setting.pretends else is_ok))
