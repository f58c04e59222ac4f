"""The architectures of checkpoints: what people call them, and which files can render one picture together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class ArchitectureFacts:
    """What the farm knows of an architecture without its networks."""

    label: str  # for people
    latent_space: str  # equal for architectures that read each other's latents, and decode them by the same VAEs
    refiners: tuple[str, ...]  # architectures of the checkpoints that can take over from it on the way
    starts_from_noise: bool = True  # else it was trained for the low noise of a picture that exists already


ARCHITECTURES: Final[dict[str, ArchitectureFacts]] = {
    "sd1": ArchitectureFacts("Stable Diffusion 1", "sd1", refiners=("sd1",)),
    "sd2": ArchitectureFacts("Stable Diffusion 2", "sd1", refiners=("sd2",)),
    "sdxl": ArchitectureFacts("Stable Diffusion XL", "sdxl", refiners=("sdxl-refiner", "sdxl")),
    "sdxl-refiner": ArchitectureFacts(
        "Stable Diffusion XL refiner", "sdxl", refiners=("sdxl-refiner", "sdxl"), starts_from_noise=False
    ),
}
"""By the name that catalogue and API know; a newer version of the farm may record others."""


def label(name: str | None) -> str:
    """Return what people call an architecture; of one that only a newer version knows, its name."""
    return ARCHITECTURES[name].label if name in ARCHITECTURES else name or "unknown architecture"


def shares_latents(one: str | None, other: str | None) -> bool:
    """True if a latent of one architecture means the same to the other. An unknown architecture (None) fits any."""
    return None in (one, other) or _latent_space(one) == _latent_space(other)


def can_refine(refiner: str | None, checkpoint: str | None) -> bool:
    """True if a checkpoint of architecture `refiner` can take over from one of architecture `checkpoint`."""
    if refiner is None or checkpoint is None or refiner == checkpoint:
        return True
    return checkpoint in ARCHITECTURES and refiner in ARCHITECTURES[checkpoint].refiners


def starts_from_noise(name: str | None) -> bool:
    """True if a checkpoint of this architecture can render a picture without another one to start from."""
    return name not in ARCHITECTURES or ARCHITECTURES[name].starts_from_noise


def _latent_space(name: str | None) -> str | None:
    return ARCHITECTURES[name].latent_space if name in ARCHITECTURES else name
