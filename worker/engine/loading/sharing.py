"""Networks that several model files hold are on a device once: a load takes over those that are there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from worker.engine.architectures.parts import Figures
from worker.engine.architectures.prediction import Prediction
from worker.engine.loading.flat import Layout

Tables = tuple[Tensor, Tensor]
"""`latent_rgb` and `sample` of `Weights`."""


@dataclass(frozen=True, eq=False)
class Resident:
    """A network on a device."""

    network: nn.Module
    buffer: Tensor | None = None  # of its weights, on a card
    tables: Mapping[float, Tables] = field(default_factory=dict)  # of a VAE, by the scale of its latents
    prediction: Prediction | None = None  # of a U-Net, if it was measured

    def suits(self, name: str, layout: Layout, figures: Figures) -> bool:
        """Return whether it has the number format of `layout`, and what the checkpoint's `figures` need to know of it:
        of a VAE the tables for latents of their scale, of a U-Net its prediction if the file does not say it.

        Both are found only before the engine's thread may call the network.
        """
        has_tables = name != "vae" or figures.latent_scale in self.tables
        is_measured = name != "unet" or figures.if_noise is None or self.prediction is not None
        return next(self.network.parameters()).dtype == layout.dtype and has_tables and is_measured


@dataclass(frozen=True, eq=False)
class Sharing:
    """What a load may take over, by the names of the networks, and what is called with all that the file then has.

    That comes after the last byte was read, and may raise ModelFileError: then the load fails.
    """

    residents: Mapping[str, Resident] = field(default_factory=dict)
    on_loaded: Callable[[Mapping[str, Resident]], object] = lambda _: None

    def fitting(self, layouts: Mapping[str, Layout], figures: Figures) -> dict[str, Resident]:
        """Return the residents that suit a checkpoint with these figures."""
        return {
            name: resident
            for name, resident in self.residents.items()
            if name in layouts and resident.suits(name, layouts[name], figures)
        }


ALONE = Sharing()
"""Takes over nothing."""
