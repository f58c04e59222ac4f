"""Conditionings: what a row of a denoising call brings beside its latent and sigma, and what may share a call."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from worker.engine.devices import Device
from worker.engine.tensor_cache import TensorCache
from worker.engine.transfers import to_device


class Stacked(NamedTuple):
    """The conditionings of the rows of one call."""

    context: Tensor  # [rows, tokens, width]
    mask: Tensor | None  # [rows, tokens]: which tokens are real; None: all of them
    pooled: Tensor | None  # [rows, width]
    sizes: Tensor | None  # [rows, figures]
    extra: Tensor | None  # [rows, channels, h, w]


class Adapter(Protocol):
    """A network that changes others for the rows that have it."""

    @property
    def sha256(self) -> str:
        """The hash of its file."""

    @property
    def architecture(self) -> str:
        """The architecture of the networks that it changes."""

    @property
    def bytes(self) -> int:
        """Its size in memory."""

    def changes(self, network: str) -> bool:
        """Return whether it changes the network of this name, as diffusers calls it."""


class Applied(NamedTuple):
    """An adapter as one row has it."""

    adapter: Adapter
    weight: float
    rank: int | None = None  # how many ranks of a low-rank one are used; None: all

    @property
    def key(self) -> tuple[str, float, int | None]:
        """Equal for what changes a network alike."""
        return self.adapter.sha256, self.weight, self.rank


class Residuals(NamedTuple):
    """What control nets add to the residuals of a U-Net."""

    down: tuple[Tensor, ...]  # of each layer of the way down, in order: [rows, channels, h, w]
    middle: Tensor


ControlMode = Literal["balanced", "prompt", "control"]
_FALL: Final = 0.825  # of a residual's weight, by residual from the middle of the U-Net outwards


@dataclass(frozen=True, eq=False)
class Control:
    """A picture that steers a row by a control net (Zhang et al. 2023, arXiv:2302.05543).

    It acts from call `start` of the pass, counted from 0, to before call `end`. Unless its mode is balanced, a residual
    weighs less the further it is from the middle of the U-Net, which leaves more to the prompt. In mode `control` the
    negative prompt is denoised without the control.
    """

    net: nn.Module
    hint: Tensor  # [channels, h/cell, w/cell]: the picture as the net has embedded it
    weight: float = 1.0
    start: int = 0
    end: int = sys.maxsize
    mode: ControlMode = "balanced"
    types: tuple[int, ...] = ()  # of a union net: what the picture shows, by the net's numbers
    is_pooled: bool = False  # the net was trained with residuals that are the same at each place, without guidance

    @property
    def acts_on_negative(self) -> bool:
        """Whether the negative prompt is denoised with it too."""
        return self.mode != "control" and not self.is_pooled

    def scales(self, residuals: int) -> tuple[float, ...]:
        """Return the weight of each of so many residuals, the middle's last."""
        fall = 1.0 if self.mode == "balanced" else _FALL
        return tuple(self.weight * fall ** (residuals - 1 - place) for place in range(residuals))


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """Pictures that a row reads beside its text by an IP-Adapter (Ye et al. 2023, arXiv:2308.06721).

    It acts from call `start` of the pass, counted from 0, to before call `end`. A row of the negative prompt reads
    `nothing` instead: the tokens of no picture.
    """

    read: Tensor  # [tokens, keys and values of all cross-attentions of the U-Net, in order]
    nothing: Tensor  # the same
    weight: float = 1.0
    start: int = 0
    end: int = sys.maxsize

    def negative(self) -> ImagePrompt:
        """Return the same for a row of the negative prompt."""
        return replace(self, read=self.nothing)


class Steering(NamedTuple):
    """The pictures that steer a pass beside its prompts: those of control nets, and those of IP-Adapters."""

    controls: tuple[Control, ...] = ()
    image_prompts: tuple[ImagePrompt, ...] = ()


UNSTEERED: Final = Steering()


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What one row is denoised towards: a text as an encoder reads it, and what else the network was trained to see.

    `chunk` is the length that a text encoder reads at once: contexts are padded to whole chunks.
    """

    context: Tensor  # [tokens, width]
    chunk: int  # tokens
    pooled: Tensor | None = None  # [width]: the whole text as one vector
    sizes: tuple[float, ...] = ()  # of the picture, in pixels, as the architecture orders them
    extra: Tensor | None = None  # [channels, h, w]: more channels beside the latent, for an inpainting checkpoint
    adapters: tuple[Applied, ...] = ()
    controls: tuple[Control, ...] = ()
    image_prompts: tuple[ImagePrompt, ...] = ()

    @property
    def tokens(self) -> int:
        """The length that this context is padded to if it is the longest of its call."""
        return padded_chunks(len(self.context) // self.chunk) * self.chunk

    @property
    def form(self) -> Hashable:
        """Equal for conditionings of one network that can be stacked, whatever the lengths of their contexts.

        A shorter context is padded, and attention leaves the padding out.
        """
        extra = None if self.extra is None else tuple(self.extra.shape)
        return self.chunk, self.context.shape[1], self.pooled is not None, len(self.sizes), extra

    def adapted(self, adapters: tuple[Applied, ...]) -> Conditioning:
        """Return the same for a row with `adapters`."""
        return replace(self, adapters=adapters) if adapters else self

    def at(self, call: int) -> Conditioning:
        """Return the same with the controls and image prompts that act in call `call` of the pass, counted from 0."""
        controls = tuple(one for one in self.controls if one.start <= call < one.end)
        prompts = tuple(one for one in self.image_prompts if one.start <= call < one.end)
        if (controls, prompts) == (self.controls, self.image_prompts):
            return self
        return replace(self, controls=controls, image_prompts=prompts)

    def zeroed(self) -> Conditioning:
        """Return the same with zeros in the place of the text."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return replace(self, context=torch.zeros_like(self.context), pooled=pooled)

    def stack(self, others: Sequence[Conditioning], device: Device, masks: TensorCache[Tensor]) -> Stacked:
        """Return this and `others`, in order, as the tensors of one call; `masks` caches its masks."""
        rows = [self, *others]
        contexts, pooled, extra = ([getattr(row, name) for row in rows] for name in ("context", "pooled", "extra"))
        length = max(row.tokens for row in rows)
        return Stacked(
            padded(contexts, length),
            _mask(tuple(map(len, contexts)), length, device, masks),
            None if self.pooled is None else torch.stack(pooled),
            to_device(torch.tensor([row.sizes for row in rows], dtype=torch.float32), device) if self.sizes else None,
            None if self.extra is None else torch.stack(extra),
        )


def padded(contexts: Sequence[Tensor], length: int) -> Tensor:
    """Return contexts [tokens, width] as one [rows, length, width], each padded with zeros."""
    if all(len(context) == length for context in contexts):
        return torch.stack(list(contexts))
    width = contexts[0].shape[1]
    zeros = contexts[0].new_zeros(length, width)
    parts = [part for context in contexts for part in (context, zeros[len(context) :])]
    return torch.cat(parts).view(len(contexts), length, width)  # one kernel for any number of rows


def padded_chunks(chunks: int) -> int:
    """Return the number of chunks that a context of `chunks` is padded to: 1, 2, 3, 4, 6, 8, 12, 16 …

    There are few lengths, so that many pictures can share a call.
    """
    power = 1 << (chunks - 1).bit_length()
    return power * 3 // 4 if power >= 4 and chunks <= power * 3 // 4 else power


def _mask(lengths: tuple[int, ...], longest: int, device: Device, masks: TensorCache[Tensor]) -> Tensor | None:
    """Return which tokens of padded contexts are real.

    None if all contexts have that length: attention without a mask is faster on a card.
    """
    if all(length == longest for length in lengths):
        return None

    mask = masks.get((longest, lengths))
    if mask is None:
        places = torch.arange(longest)[None]
        mask = to_device(places < torch.tensor(lengths)[:, None], device)
        masks.put((longest, lengths), mask)
    return mask
