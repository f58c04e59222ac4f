"""Previews are made by the tiny decoder that reads a checkpoint's latents best, else by its linear map."""

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
from worker.engine.architectures.weights import Weights
from worker.engine.images import previews
from worker.render.local_models import Found, LocalModels

log = structlog.get_logger(__name__)

LEAST_FIT: Final = 0.5  # of a known picture's colours; a decoder of other latents finds none of them


class PreviewDecoders:
    """Makes previews, all on one thread that is not the engine's. If a decoder fails, the map makes them."""

    def __init__(
        self, files: LocalModels | None, load: Callable[[Found], Future[nn.Module]], poll_seconds: float
    ) -> None:
        """`files` is asked for decoders every `poll_seconds`; without it the map makes all previews.

        Previews do not wait for `load`: the map makes them until a decoder is loaded.
        """
        self._files = files
        self._load = load
        self._poll_seconds = poll_seconds
        self._poll_at = 0.0
        self._decoders: dict[str, nn.Module | None] = {}  # by SHA-256; None: not loaded yet, or it failed
        self._loading: dict[str, Future[nn.Module]] = {}
        self._chosen: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # U-Net -> SHA-256, or "" for the map

    def picture(self, denoised: Tensor, weights: Weights) -> Pixels:
        """Return a small picture of a denoised latent [channels, h/cell, w/cell] of `weights`."""
        self._poll()
        self._take_loaded()
        sha256 = self._choice(weights)
        decoder = self._decoders.get(sha256)
        if decoder is not None:
            try:
                return previews.decoded(denoised, decoder)
            except Exception as error:  # noqa: BLE001 - the map makes the preview instead
                self._failed(sha256, error)
        return previews.mapped(denoised, weights.latent_rgb)

    def _poll(self) -> None:
        """Read which decoders there are now; if that changed, choose again for each checkpoint."""
        if self._files is None or time.monotonic() < self._poll_at:
            return
        self._poll_at = time.monotonic() + self._poll_seconds
        try:
            found = self._files.decoders()
        except Unavailable:  # those that are known will do
            return
        if found != list(self._decoders):
            self._decoders = {sha256: self._decoders.get(sha256) for sha256 in found}
            self._loading = {sha256: one for sha256, one in self._loading.items() if sha256 in self._decoders}
            for sha256 in found:
                if self._decoders[sha256] is None and sha256 not in self._loading:
                    try:
                        self._loading[sha256] = self._load(self._files.find(sha256, "decoder"))
                    except (RenderError, Unavailable) as error:
                        _warn(sha256, error)
            self._chosen.clear()

    def _take_loaded(self) -> None:
        """Use the decoders that are loaded now, and choose again for each checkpoint."""
        for sha256 in [sha256 for sha256, one in self._loading.items() if one.done()]:
            try:
                self._decoders[sha256] = self._loading.pop(sha256).result()
            except (RenderError, Unavailable) as error:
                _warn(sha256, error)
            self._chosen.clear()

    def _choice(self, weights: Weights) -> str:
        """Return the decoder that reads the latents of `weights` best, of equals the first by name; "" if none does."""
        if weights.unet not in self._chosen:
            fits = {sha256: self._fit(sha256, weights.sample) for sha256 in self._decoders}
            best = max(fits, key=fits.__getitem__, default="")
            self._chosen[weights.unet] = best if fits.get(best, 0.0) >= LEAST_FIT else ""
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
        log.info("tiny decoder tried", sha256=sha256, fit=round(fit, 2), reads=fit >= LEAST_FIT)
        return fit

    def _failed(self, sha256: str, error: Exception) -> None:
        """Stop using a decoder, unless it only ran out of memory."""
        log.warning("preview not decoded", sha256=sha256, reason=f"{type(error).__name__}: {error}")
        if not cuda_errors.is_out_of_memory(error):
            self._decoders[sha256] = None
            self._chosen.clear()


def _warn(sha256: str, error: Exception) -> None:
    log.warning("tiny decoder not loaded", sha256=sha256, reason=str(error))
