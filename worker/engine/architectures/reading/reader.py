"""How a checkpoint of an architecture is read from the files that people have.

Imports diffusers, which takes seconds: imported when a checkpoint is read, not before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.architectures.base import Architecture
from worker.engine.architectures.parts import Figures, Part, Parts
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.reading import original_config, unet, vae
from worker.engine.architectures.reading.original_config import Stated
from worker.engine.architectures.reading.text import ClipText, OpenClipText
from worker.engine.files.config_bounds import Config, shown
from worker.engine.files.kinds import OtherKind
from worker.engine.sigma_table import ALIGNED_SD1, SigmaTable

VELOCITY: Final = "v_pred"
"""The name of a tensor without meaning, by which a file says that its network predicts the velocity."""
ZERO_TERMINAL_SNR: Final = "ztsnr"
"""The same for a noise table whose last timestep holds noise alone."""
_OTHER_KEYS: Final = {
    "edm_mean": "a Playground 2.5 checkpoint, whose noise is another (EDM)",
    "edm_vpred.sigma_max": "a CosXL checkpoint, whose noise is another (EDM)",
}


@dataclass(frozen=True)
class Expected:
    """What a file of an architecture is taken for, unless it says otherwise."""

    prediction: Prediction
    native_size: int  # pixels of a side
    note: str | None = None


class Reader(ABC):
    """Reads the checkpoints of one architecture."""

    architecture: ClassVar[Architecture]
    texts: ClassVar[Mapping[str, ClipText | OpenClipText]]  # by the network's name
    latent_scale: ClassVar[float] = 0.18215
    aligned: ClassVar[tuple[float, ...]] = ALIGNED_SD1

    def likeness(self, weights: Mapping[str, Tensor]) -> tuple[bool, int]:
        """Return whether a file defines a text encoder of this architecture, and how many of its names it has.

        The greatest decides: leftovers of a merge define nothing, and the number is for damaged files.
        """
        names = sum(text.holds(name) for text in self.texts.values() for name in weights)
        return any(text.defined(weights) for text in self.texts.values()), names

    def of_file(self, path: Path, weights: Mapping[str, Tensor]) -> Parts:
        """Return the checkpoint in the single file at `path`. Raises ModelFileError."""
        self._require_whole(weights)
        self.require_channels(unet.channels(weights))
        networks = {name: text.part(weights) for name, text in self.texts.items()}
        config = unet.config(weights) | self.size_config(weights, networks)
        networks["unet"] = unet.part(weights, config)
        if drawn := vae.inside(weights):
            networks["vae"] = vae.part(drawn)
        stated = original_config.stated(path, config, networks["vae"].config if drawn else None)
        figures = self.figures(weights, stated)
        adds = figures.effect() != self.figures(weights, Stated()).effect()
        noted = figures.with_notes(unet.note(weights))
        return Parts(networks, self.architecture.name, noted, figures.effect() if adds else None)

    @abstractmethod
    def expected(self, weights: Mapping[str, Tensor], prediction: Prediction | None) -> Expected:
        """Return what a file is taken for that says, if anything, that it predicts `prediction`."""

    def size_config(self, weights: Mapping[str, Tensor], texts: Mapping[str, Part]) -> Config:
        """Return the U-Net's configuration for what it reads about the picture's size. Raises ModelFileError."""
        del weights, texts
        return {}

    def figures(self, weights: Mapping[str, Tensor], stated: Stated) -> Figures:
        """Return the figures of a single file, by its .yaml, else by its weights, else as such files usually are."""
        by_key = Prediction.VELOCITY if VELOCITY in weights else None
        expected = self.expected(weights, stated.prediction or by_key)
        sigmas = replace(stated.sigmas or SigmaTable.scaled_linear(), aligned=self.aligned)
        return Figures(
            sigmas=sigmas.at_zero_terminal_snr() if ZERO_TERMINAL_SNR in weights else sigmas,
            prediction=expected.prediction,
            latent_scale=stated.latent_scale or self.latent_scale,
            native_size=stated.native_size or expected.native_size,
            note=expected.note,
        )

    def require_channels(self, channels: object) -> None:
        """Raise ModelFileError unless a U-Net that takes so many channels sees a latent, or a mask beside it."""
        latent = self.architecture.latent
        if channels == 2 * latent.channels:
            raise ModelFileError("is an InstructPix2Pix checkpoint, whose U-Net takes 8 channels: not supported")
        if channels not in (latent.channels, latent.channels + latent.mask_channels):
            raise ModelFileError(f"its U-Net takes {shown(channels)} channels; 4, or 9 for inpainting, are supported")

    def _require_whole(self, weights: Mapping[str, Tensor]) -> None:
        for key, what in _OTHER_KEYS.items():
            if key in weights:
                raise OtherKind(what)
        prefixes = {"U-Net": unet.PREFIX} | {name: text.prefix for name, text in self.texts.items()}
        for name, prefix in prefixes.items():
            if not any(key.startswith(prefix) for key in weights):
                what = f"its {name.replace('_', ' ')} ({prefix}*)"
                raise ModelFileError(f"is a {self.architecture.label} checkpoint without {what}: it cannot render")
