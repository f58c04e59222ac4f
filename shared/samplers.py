"""Which samplers and schedules the farm knows, as facts: names, what each combines with, model calls. The engine holds the mathematics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

AUTOMATIC: Final = "automatic"
SCHEDULES: Final = {AUTOMATIC: "Automatic", "uniform": "Uniform", "karras": "Karras"}
"""Schedule names and their labels, in the order that people see them."""


@dataclass(frozen=True)
class Sampler:
    """One sampler: `automatic` is the schedule that `automatic` stands for; none of its own: the model's uniform one."""

    name: str
    automatic: str
    schedules: tuple[str, ...]
    is_ancestral: bool = False

    def schedule(self, asked: str) -> str:
        """Return the schedule that `asked` means for this sampler."""
        return self.automatic if asked == AUTOMATIC else asked


_SIGMAS: Final = (AUTOMATIC, "uniform", "karras")
SAMPLERS: Final = {
    sampler.name: sampler
    for sampler in (
        Sampler("Euler a", "uniform", _SIGMAS, is_ancestral=True),
        Sampler("Euler", "uniform", _SIGMAS),
        Sampler("DPM++ 2M", "karras", _SIGMAS),
        Sampler("DDIM", "ddim", (AUTOMATIC,)),  # spaces its own timesteps
    )
}
