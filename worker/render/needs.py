"""The models that an image needs, by their roles in its render, and the kit that they make once they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self, cast

from shared.models.model_set import ModelSet
from worker.engine.architectures.weights import Weights
from worker.engine.pipelines.inputs import Kit
from worker.engine.upscaling.architectures import PixelNetwork
from worker.render.model_cache import Model
from worker.render.sources import Sources

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from worker.render.file_loads import Loaded


class Choice(NamedTuple):
    """A checkpoint that an image is rendered with, and its VAE; None: the one built in."""

    checkpoint: Model
    vae: Model | None

    def weights(self, loaded: Mapping[Model, Loaded]) -> Weights:
        """Return the checkpoint with its VAE."""
        weights = cast("Weights", loaded[self.checkpoint])
        return weights.with_vae(cast("AutoencoderKL", loaded[self.vae])) if self.vae else weights


@dataclass(frozen=True)
class Needs:
    """The models of one image. A role that a render may have is a field here, and a line in each of the methods."""

    checkpoints: Mapping[str, Choice]  # by their place in the kit
    upscaler: Model | None = None

    @classmethod
    def of(cls, models: ModelSet) -> Self:
        """Return what a render with `models` needs."""
        checkpoints = {
            "weights": (models.checkpoint, models.vae),
            "refiner": (models.refiner, None),  # it decodes nothing
            "hires": (models.hires, models.hires_vae),
        }
        return cls(
            {
                place: Choice(Model("checkpoint", sha256), Model("vae", vae) if vae else None)
                for place, (sha256, vae) in checkpoints.items()
                if sha256
            },
            upscaler=Model("upscaler", models.upscaler) if models.upscaler else None,
        )

    @property
    def models(self) -> frozenset[Model]:
        """All models that must be loaded before the image starts."""
        chosen = (model for choice in self.checkpoints.values() for model in choice)
        return frozenset(filter(None, (*chosen, self.upscaler)))

    def kit(self, loaded: Mapping[Model, Loaded], sources: Sources) -> Kit:
        """Return the kit of a render. Raises RenderError if what was loaded does not fit together."""
        weights = {place: choice.weights(loaded) for place, choice in self.checkpoints.items()}
        upscaler = cast("PixelNetwork", loaded[self.upscaler]) if self.upscaler else None
        return Kit(
            weights["weights"],
            weights.get("refiner"),
            weights.get("hires"),
            sources.source,
            sources.mask,
            upscaler=upscaler,
        )
