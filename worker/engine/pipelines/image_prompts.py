"""The image prompts of a pass: each picture prepared on the host, and read by its image encoder and its IP-Adapter.

The keys and values of a picture are cached, so the images of a job, and both passes of each, read it once.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from shared.media.arrays import Pixels
from worker.engine.adapters.ip_adapters import IPAdapter
from worker.engine.architectures.conditioning import ImagePrompt
from worker.engine.architectures.weights import Weights
from worker.engine.images.clip_input import clip_input
from worker.engine.loading.image_encoders import ImageEncoder
from worker.engine.pipelines.controls import calls
from worker.engine.pipelines.denoise_pass import Pass
from worker.engine.pipelines.inputs import Kit
from worker.engine.requests import Apply, Asks, Work
from worker.engine.transfers import pinned, to_device


def image_prompts(this_pass: Pass, kit: Kit) -> Asks[tuple[ImagePrompt, ...]]:
    """Return the image prompts of a pass.

    Raises RenderError if an IP-Adapter does not suit the checkpoint or the image encoder.
    """
    weights, found = this_pass.weights, []
    for unit, adapter, encoder, pictures in kit.ip_adapters:
        first, behind = calls(this_pass, unit.start, unit.end)
        if unit.weight and first < behind:
            adapter.require_fit(weights)
            adapter.require_reads(encoder)
            read: list[Tensor] = []
            for sha256, picture in zip((*unit.pictures, None), (*pictures, None), strict=True):
                if (known := adapter.remembered(encoder, sha256)) is None:
                    known = yield from _read(weights, adapter, encoder, sha256, picture)
                    adapter.remember(encoder, sha256, known)
                read.append(known)
            *shown, nothing = read
            together = torch.cat(shown) if len(shown) > 1 else shown[0]
            found.append(ImagePrompt(together, nothing, unit.weight, first, behind))
    return tuple(found)


def _read(
    weights: Weights, adapter: IPAdapter, encoder: ImageEncoder, sha256: str | None, picture: Pixels | None
) -> Asks[Tensor]:
    """Return keys and values [tokens, …] of a picture, or of none.

    In the place of features of no picture stand zeros, and in the place of hidden ones those of a picture of zeros, as
    adapters are trained. Images that read the same picture at the same time share the calls.
    """
    features, device, key = adapter.sizes.features, weights.device, (encoder, sha256)
    if picture is None and features == "projected":
        seen = torch.zeros(1, adapter.sizes.image_width, dtype=weights.dtype, device=device.torch)
    else:
        prepared = to_device((yield Work(partial(_prepared, weights, encoder.side, picture))), device)
        seen = yield Apply(encoder.readers[features], prepared, places=encoder.places, answer_key=key)
    read: Tensor = yield Apply(adapter.network, seen, places=len(seen), answer_key=key)
    return read


def _prepared(weights: Weights, side: int, picture: Pixels | None) -> Tensor:
    pixels = torch.zeros(3, side, side) if picture is None else clip_input(picture, side)
    return pinned(pixels.to(weights.dtype), weights.device)
