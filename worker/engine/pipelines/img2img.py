"""The start of a pass over a picture, on the card: its latent, and how far each place is repainted."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, from_numpy, zeros_like

from shared.media.arrays import OPAQUE, Mask, Pixels, rounded
from shared.params.img2img import Mask as MaskOptions
from worker.engine.guidance import inpainting
from worker.engine.guidance.inpainting import View
from worker.engine.images import latents
from worker.engine.images.latents import mixed
from worker.engine.images.masks import cells
from worker.engine.images.tensors import to_tensor
from worker.engine.pipelines.denoise_pass import Pass
from worker.engine.pipelines.img2img_host import Canvas
from worker.engine.requests import Asks, Work
from worker.engine.sampling.algebra import Model
from worker.engine.transfers import pinned, to_device
from worker.engine.vae import encoded


@dataclass(frozen=True, eq=False)
class Area:
    """The part of a latent that is repainted: `strength` [1, h/cell, w/cell] in 0..1 says how far."""

    strength: Tensor
    how: MaskOptions

    @property
    def mask(self) -> Tensor:
        """1 where a cell may change, else 0 [1, h/cell, w/cell]: cells masked by half, or at all by a soft mask."""
        changes = self.strength > 0 if self.how.soft else self.strength >= 0.5
        return changes.to(self.strength.dtype)


@dataclass(frozen=True, eq=False)
class Scene:
    """The latent that a pass starts from, the area to repaint (None: all), and the view of inpainting."""

    latent: Tensor
    area: Area | None = None
    view: View | None = None

    def model(self, model: Model, noise: Tensor, this_pass: Pass) -> Model:
        """Return `model`, which leaves the latent outside of the area as it is."""
        if self.area is None:
            return model
        if self.area.how.soft:
            return inpainting.released(model, self.latent, noise, self.area.strength, this_pass.sigmas)
        if this_pass.facts.uses_network_scale:
            return inpainting.reset(model, self.latent, noise, self.area.mask)
        return inpainting.held(model, self.latent, self.area.mask)

    def with_unmasked(self, latent: Tensor) -> Tensor:
        """Return a result with the original latent outside of the area."""
        return mixed(latent, self.latent, self.area.mask) if self.area else latent


def scene(canvas: Canvas, this_pass: Pass, noise: Tensor, how: MaskOptions | None) -> Asks[Scene]:
    """Return the scene of `canvas`; the masked part starts from itself, from `noise` or from zeros."""
    device = this_pass.weights.device
    pixels = yield Work(lambda: pinned(to_tensor(canvas.start), device))
    latent = yield from encoded(this_pass.weights, to_device(pixels, device))
    params, cell = this_pass.params, this_pass.weights.latent.cell
    latent = latents.resized(latent, params.height // cell, params.width // cell)
    mask = canvas.mask
    if mask is None or how is None:
        return Scene(latent)
    strength = yield Work(lambda: pinned(cells(mask, cell), device))
    area = Area(to_device(strength, device), how)
    if how.content == "latent noise":
        latent = mixed(noise, latent, area.mask)
    if how.content == "latent nothing":
        latent = mixed(zeros_like(latent), latent, area.mask)
    return Scene(latent, area, (yield from _view(canvas.shown, mask, this_pass, how)))


def _view(shown: Pixels, mask: Mask, this_pass: Pass, how: MaskOptions) -> Asks[View | None]:
    """Return the view of an inpainting checkpoint; None if there is none in this pass."""
    if not this_pass.takes_mask:
        return None
    device = this_pass.weights.device
    pixels = yield Work(lambda: pinned(to_tensor(shown), device))
    hidden = yield Work(lambda: pinned(from_numpy(rounded(mask) // OPAQUE).float()[None], device))
    return View(to_device(pixels, device), to_device(hidden, device), how.weight)
