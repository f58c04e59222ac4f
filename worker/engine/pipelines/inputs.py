"""What a pipeline renders with: loaded checkpoints and decoded pictures, beside the parameters that name them."""

from __future__ import annotations

from dataclasses import dataclass

from worker.engine.images.arrays import Mask, Pixels
from worker.engine.weights import Weights


@dataclass(frozen=True, eq=False)
class Kit:
    """The checkpoints of each part of a render and the pictures it starts from; None where the parameters name none."""

    weights: Weights
    refiner: Weights | None = None  # takes over on the way
    hires: Weights | None = None  # renders the second pass
    source: Pixels | None = None
    mask: Mask | None = None  # above 128: painted again

    def of_pass(self, *, is_second: bool) -> Weights:
        """Return the checkpoint of the first or the second pass: its latents are for that one's VAE."""
        return self.hires or self.weights if is_second else self.weights
