"""What previews are made by: the first tiny decoder that reads a checkpoint's latents, else its linear map."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final
from weakref import WeakKeyDictionary

import structlog
from torch import Tensor, nn

from shared.errors import RenderError, Unavailable
from worker.encode import Pixels
from worker.engine import cuda_errors
from worker.engine.images import previews
from worker.engine.weights import Weights
from worker.render.local_models import Found, LocalModels

log = structlog.get_logger(__name__)

LEAST_FIT: Final = 0.5  # of a known picture's colours; a decoder of other latents finds none of them


class Previewer:
    """Makes previews, all on one thread that is not the engine's. What goes wrong with a decoder ends at the map."""

    def __init__(
        self, files: LocalModels | None, load: Callable[[Found], Future[nn.Module]], look_seconds: float
    ) -> None:
        """`files` is asked for decoders every `look_seconds`; without it the map makes all previews.

        `load` is not waited for: the map makes previews until a decoder has come.
        """
        self._files = files
        self._load = load
        self._look_seconds = look_seconds
        self._look_at = 0.0
        self._decoders: dict[
            str, nn.Module | None
        ] = {}  # SHA-256 -> what previews are decoded by; None: none yet, or failed
        self._coming: dict[str, Future[nn.Module]] = {}
        self._chosen: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # U-Net -> SHA-256, or "" for the map

    def picture(self, denoised: Tensor, weights: Weights) -> Pixels:
        """Return a small picture of a denoised latent [4, h/8, w/8] that `weights` are to make one of."""
        self._look()
        self._take_in()
        sha256 = self._choice(weights)
        decoder = self._decoders.get(sha256)
        if decoder is not None:
            try:
                return previews.decoded(denoised, decoder)
            except Exception as error:  # noqa: BLE001 - whatever fails, there is another way to a preview
                self._failed(sha256, error)
        return previews.mapped(denoised, weights.latent_rgb)

    def _look(self) -> None:
        """Learn which decoders there are now; where that changed, each checkpoint's is chosen again."""
        if self._files is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self._look_seconds
        try:
            found = self._files.decoders()
        except Unavailable:  # those known will do
            return
        if found != list(self._decoders):
            self._decoders = {sha256: self._decoders.get(sha256) for sha256 in found}
            self._coming = {sha256: one for sha256, one in self._coming.items() if sha256 in self._decoders}
            for sha256 in found:
                if self._decoders[sha256] is None and sha256 not in self._coming:
                    self._ask(self._files, sha256)
            self._chosen.clear()

    def _ask(self, files: LocalModels, sha256: str) -> None:
        try:
            self._coming[sha256] = self._load(files.find(sha256))
        except (RenderError, Unavailable) as error:
            _warn(sha256, error)

    def _take_in(self) -> None:
        """Use the decoders that have come; each checkpoint's is chosen again."""
        for sha256 in [sha256 for sha256, one in self._coming.items() if one.done()]:
            try:
                self._decoders[sha256] = self._coming.pop(sha256).result()
            except (RenderError, Unavailable) as error:
                _warn(sha256, error)
            self._chosen.clear()

    def _choice(self, weights: Weights) -> str:
        """The first decoder by name that reads the latents of `weights`; "" where none does."""
        if weights.unet not in self._chosen:
            fits = {sha256: self._fit(sha256, weights.sample) for sha256 in self._decoders}
            self._chosen[weights.unet] = next((sha256 for sha256, fit in fits.items() if fit >= LEAST_FIT), "")
        return self._chosen[weights.unet]

    def _fit(self, sha256: str, sample: Tensor) -> float:
        decoder = self._decoders[sha256]
        if decoder is None:
            return 0.0
        try:
            fit = previews.fit(decoder, sample)
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(sha256, error)
            return 0.0
        log.info("tiny decoder tried", sha256=sha256, fit=round(fit, 2), is_used=fit >= LEAST_FIT)
        return fit

    def _failed(self, sha256: str, error: Exception) -> None:
        """Use a decoder no more, unless there was only no room for what it does."""
        log.warning("preview not decoded", sha256=sha256, reason=f"{type(error).__name__}: {error}")
        if not cuda_errors.is_out_of_memory(error):
            self._decoders[sha256] = None
            self._chosen.clear()


def _warn(sha256: str, error: Exception) -> None:
    log.warning("tiny decoder not loaded", sha256=sha256, reason=str(error))
