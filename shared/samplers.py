"""Which samplers and schedules the farm knows, as facts; the engine holds the mathematics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

AUTOMATIC: Final = "automatic"
SCHEDULES: Final = {AUTOMATIC: "Automatic", "uniform": "Uniform", "karras": "Karras"}
"""Schedule names and their labels, in the order that people see them."""


@dataclass(frozen=True)
class Sampler:
    """One sampler: `automatic` is the schedule that `automatic` stands for, `schedules` what it takes by name.

    An ancestral one draws noise at each step. One that starts at unit variance takes the first noise as it is drawn for
    the whole noisy latent, at the variance-preserving scale.
    """

    name: str
    automatic: str
    schedules: tuple[str, ...]
    is_ancestral: bool = False
    starts_at_unit_variance: bool = False

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
        Sampler("DDIM", "ddim", (AUTOMATIC,), starts_at_unit_variance=True),  # spaces its own timesteps
    )
}
