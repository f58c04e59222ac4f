"""Answers to `ToPixels`, `ToLatent` and `Apply`: networks on whole pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from worker.engine.answers.calls import Calls, Subject
from worker.engine.answers.tiling import seamless
from worker.engine.requests import Apply, ToLatent, ToPixels


def to_pixels(requests: Sequence[ToPixels], calls: Calls | None = None) -> list[Tensor | Exception]:
    """Return pixels [3, h, w], float32, about -1..1, for each latent; all have the same weights and shape."""
    return (calls or Calls()).make(_decode, requests, _subject("decode", requests[0], requests[0].latent))


@torch.inference_mode()
def _decode(requests: Sequence[ToPixels]) -> Sequence[Tensor]:
    weights = requests[0].weights
    latents = torch.stack([request.latent for request in requests]) / weights.latent_scale
    with _ready(requests[0]) as dtype:
        latents = latents.to(dtype, memory_format=torch.channels_last)
        pixels: Tensor = weights.require_vae().decode(latents, return_dict=False)[0]
    return pixels.float().unbind()


def to_latent(requests: Sequence[ToLatent], calls: Calls | None = None) -> list[Tensor | Exception]:
    """Return the most likely latent, float32, of each picture [3, h, w]; all have the same weights and shape."""
    return (calls or Calls()).make(_encode, requests, _subject("encode", requests[0], requests[0].pixels))


@torch.inference_mode()
def _encode(requests: Sequence[ToLatent]) -> Sequence[Tensor]:
    weights = requests[0].weights
    pixels = torch.stack([request.pixels for request in requests])
    with _ready(requests[0]) as dtype:
        pixels = pixels.to(dtype, memory_format=torch.channels_last)
        latents: Tensor = weights.require_vae().encode(pixels).latent_dist.mode()
    return (latents.float() * weights.latent_scale).unbind()


def _subject(kind: str, request: ToPixels | ToLatent, tensor: Tensor) -> Subject:
    kind = f"{kind} in float32" if request.is_precise else kind  # which needs about twice the memory
    return Subject(kind, request.weights.require_vae(), tuple(tensor.shape), request.is_divisible)


@contextmanager
def _ready(request: ToPixels | ToLatent) -> Iterator[torch.dtype]:
    """Within the block, the VAE wraps and rounds as `request` asks; yields its number format."""
    vae = request.weights.require_vae()
    with seamless(vae, request.weights.tiling):
        if not request.is_precise:
            yield next(vae.parameters()).dtype
            return
        with _in_float32(vae):
            yield torch.float32


@contextmanager
def _in_float32(network: nn.Module) -> Iterator[None]:
    """Within the block, `network` has copies of its weights in float32; its own weights stay in memory."""
    own = dict(network.named_parameters())
    try:
        with torch.inference_mode(mode=False):  # a network's parameters cannot be replaced by inference tensors
            precise = {name: nn.Parameter(one.detach().float(), requires_grad=False) for name, one in own.items()}
        _replace_parameters(network, precise)
        del precise
        yield
    finally:
        _replace_parameters(network, own)


def _replace_parameters(network: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
    for name, weight in weights.items():
        layer, _, part = name.rpartition(".")
        setattr(network.get_submodule(layer), part, weight)


def apply(requests: Sequence[Apply], calls: Calls | None = None) -> list[Tensor | Exception]:
    """Return the network's output for each picture; all have the same network and shape.

    Requests with the same answer are answered by one row.
    """
    first = requests[0]
    subject = Subject("apply", first.network, tuple(first.pixels.shape), first.is_divisible)
    if first.answer_key is None:
        return (calls or Calls()).make(_apply, requests, subject)
    [answered] = (calls or Calls()).make(_apply, [first], subject)
    return [answered] * len(requests)


@torch.inference_mode()
def _apply(requests: Sequence[Apply]) -> Sequence[Tensor]:
    network, options = requests[0].network, requests[0].options
    with seamless(network, requests[0].tiling):
        pixels: Tensor = network(torch.stack([request.pixels for request in requests]), **options)
    return pixels.unbind()
