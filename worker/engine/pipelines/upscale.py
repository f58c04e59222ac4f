"""Pictures that are enlarged by themselves, without a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from shared.media.arrays import Mask, Pixels
from shared.params.upscale import Upscale
from worker.engine.devices import Device
from worker.engine.requests import Asks, Work
from worker.engine.upscaling.architectures import PixelNetwork
from worker.engine.upscaling.enlarging import Size, enlarged_by
from worker.engine.upscaling.face_restoring import restored


@dataclass(frozen=True, eq=False)
class UpscaleKit:
    """The inputs beside the parameters; without a network the parameters name a way that needs none."""

    device: Device
    source: Pixels
    alpha: Mask | None = None  # None: opaque
    first: PixelNetwork | None = None
    second: PixelNetwork | None = None
    face_restorer: PixelNetwork | None = None


def upscaled(options: Upscale, kit: UpscaleKit) -> Asks[Pixels]:
    """Return the picture enlarged [h, w, 3], or [h, w, 4] if it is transparent: alpha is enlarged by Lanczos."""
    size = options.size(kit.source.shape[1], kit.source.shape[0])
    result = yield from _by(kit.first, options.upscaler, kit, size)
    if options.second and options.second_share:
        other = yield from _by(kit.second, options.second, kit, size)
        result = yield Work(partial(_mixed, result, other, options.second_share))
    if options.faces and kit.face_restorer:
        result = yield from restored(kit.face_restorer, result, options.faces, kit.device)
    if kit.alpha is None:
        return result
    whole: Pixels = yield Work(partial(_with_alpha, result, kit.alpha))
    return whole


def _by(network: PixelNetwork | None, name: str, kit: UpscaleKit, size: Size) -> Asks[Pixels]:
    return enlarged_by(network, kit.source, size, kit.device, is_nearest=name == "Nearest")


def _mixed(one: Pixels, other: Pixels, share: float) -> Pixels:
    """Return two pictures mixed, band by band: as fractions they would take a multiple of their memory."""
    bands = range(0, len(one), 256)
    parts = [one[top : top + 256] * np.float32(1 - share) + other[top : top + 256] * np.float32(share) for top in bands]
    return np.concatenate([part.round().astype(np.uint8) for part in parts])


def _with_alpha(pixels: Pixels, alpha: Mask) -> Pixels:
    size = pixels.shape[1], pixels.shape[0]
    larger = np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.LANCZOS))
    return np.dstack([pixels, larger])
