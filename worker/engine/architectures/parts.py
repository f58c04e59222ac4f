"""A checkpoint as it is read: its networks with their weights, and the figures that it states."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from worker.engine.architectures.prediction import Prediction
from worker.engine.files.config_bounds import Config
from worker.engine.sigma_table import SigmaTable


@dataclass(frozen=True)
class Figures:
    """The figures that a checkpoint states beside its networks."""

    sigmas: SigmaTable
    prediction: Prediction
    latent_scale: float  # factor that gives the VAE's latents about unit variance
    native_size: int  # pixels of a side
    note: str | None = None  # for people: what was assumed because the file does not say it, or is not used
    if_noise: Figures | None = None
    """The figures instead of these if the loaded network predicts noise; None: the file says what it predicts."""

    def predicting(self, prediction: Prediction) -> Figures:
        """Return the figures of a network that was found to predict `prediction`."""
        if self.if_noise is None:
            return self
        return self.if_noise if prediction is Prediction.NOISE else replace(self, note=None, if_noise=None)

    def effect(self) -> str:
        """Return a digest that is equal for figures that give the same pictures."""
        told = [self.sigmas.values, self.prediction.value, self.latent_scale, self.native_size]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def with_notes(self, *notes: str | None) -> Figures:
        """Return these figures with more notes behind their own; None adds nothing."""
        return replace(self, note="; ".join(filter(None, (self.note, *notes))) or None)


@dataclass(frozen=True)
class Part:
    """One network: its configuration, and its weights under the names of diffusers (or transformers)."""

    config: Config
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class Parts:
    """A whole checkpoint: its networks by diffusers' names for them, and its figures.

    Without "vae" it needs the VAE of another file.
    """

    networks: Mapping[str, Part]
    architecture: str
    figures: Figures
    description: str | None = None  # digest of a .yaml that adds to the weights; else None
