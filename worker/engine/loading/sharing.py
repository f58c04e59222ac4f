"""Networks that several model files hold are on a device once: a load takes over those that are there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from worker.engine.loading.flat import Layout

Tables = tuple[Tensor, Tensor]
"""`latent_rgb` and `sample` of `Weights`."""


@dataclass(frozen=True, eq=False)
class Resident:
    """A network on a device."""

    network: nn.Module
    buffer: Tensor | None = None  # of its weights, on a card
    tables: Mapping[float, Tables] = field(default_factory=dict)  # of a VAE, by the scale of its latents

    def suits(self, layout: Layout, latent_scale: float) -> bool:
        """Return whether it has the number format of `layout`, and as a VAE the tables for latents of this scale.

        Tables are computed only before the engine's thread may call the VAE.
        """
        has_tables = latent_scale in self.tables or not hasattr(self.network, "decode")
        return next(self.network.parameters()).dtype == layout.dtype and has_tables


@dataclass(frozen=True, eq=False)
class Sharing:
    """What a load may take over, by the names of the networks, and who is given all that the checkpoint then has."""

    residents: Mapping[str, Resident] = field(default_factory=dict)
    on_loaded: Callable[[Mapping[str, Resident]], object] = lambda _: None

    def fitting(self, layouts: Mapping[str, Layout], latent_scale: float) -> dict[str, Resident]:
        """Return the residents that suit a checkpoint."""
        return {
            name: resident
            for name, resident in self.residents.items()
            if name in layouts and resident.suits(layouts[name], latent_scale)
        }


ALONE = Sharing()
"""Takes over nothing."""
