"""IP-Adapters on a card, and the attention of rows to their tokens.

Each cross-attention of a U-Net adds to a row's attention to the text `weight * attention(query, keys, values)`, of keys
and values that an adapter has made of the row's pictures. They are the same at every step, so they are made once, and
no layer of an adapter is part of a call: rows with different adapters, several, or none share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from shared.errors import RenderError
from worker.engine.adapters.attentions import attentions
from worker.engine.architectures.conditioning import ImagePrompt
from worker.engine.architectures.reading import ip_adapters as files
from worker.engine.architectures.weights import Weights, network_bytes
from worker.engine.devices import Device
from worker.engine.loading.image_encoders import ImageEncoder
from worker.engine.loading.load import MakeRoom, explained, fill_alone
from worker.engine.tensor_cache import TensorCache
from worker.engine.transfers import to_device

READ_BYTES: Final = 64 * 2**20  # of what an adapter remembers of pictures; 0.2 to 13 MB each in half precision
_CROSS_ATTENTION: Final = ".attn2"  # end of its path in a U-Net


@dataclass(frozen=True, eq=False)
class IPAdapter:
    """One IP-Adapter."""

    name: str  # for people
    sizes: files.Sizes
    network: nn.Module  # features of a picture [rows, places, width] -> keys and values [rows, tokens, …]
    # By the encoder that read them, then by the hash of the picture. An encoder leaves the card while adapters stay,
    # and takes with it what it read. At most one encoder has an entry, so READ_BYTES is all that is remembered.
    _read: WeakKeyDictionary[ImageEncoder, TensorCache[Tensor]] = field(default_factory=WeakKeyDictionary, init=False)

    @property
    def bytes(self) -> int:
        """The size of its weights in memory, and of what it remembers of pictures. Any thread may read it."""
        encoders = (reference() for reference in self._read.keyrefs())
        caches = (self._read.get(encoder) for encoder in encoders if encoder is not None)
        return network_bytes(self.network) + sum(cache.size for cache in caches if cache is not None)

    def remembered(self, encoder: ImageEncoder, sha256: str | None) -> Tensor | None:
        """Return the keys and values [tokens, …] of a picture that `encoder` read, by its hash, or of no picture; None
        if they are not remembered. For one thread at a time: the engine's.
        """
        cache = self._read.get(encoder)
        return None if cache is None else cache.get(sha256)

    def remember(self, encoder: ImageEncoder, sha256: str | None, read: Tensor) -> None:
        """Remember the keys and values of a picture, or of no picture, while `encoder` stays; as `remembered`."""
        cache = self._read.get(encoder)
        if cache is None:
            self._read.clear()
            cache = self._read[encoder] = TensorCache(READ_BYTES, lambda one: one.nbytes)
        cache.put(sha256, read)

    def require_fit(self, weights: Weights) -> None:
        """Raise RenderError unless it was trained beside a U-Net of the form of that of `weights`."""
        layers = [layer.to_k.weight for layer in _cross_attentions(weights.unet)]
        theirs = tuple(one.shape[0] for one in layers)
        context = layers[0].shape[1] if layers else 0
        if (self.sizes.widths, self.sizes.context) != (theirs, context):
            form = f"{_form(self.sizes.widths, self.sizes.context)}; this checkpoint's has {_form(theirs, context)}"
            raise RenderError(
                f"the IP-Adapter {self.name} was made for a U-Net with {form}: choose one that was made for "
                f"{weights.architecture.label}"
            )

    def require_reads(self, encoder: ImageEncoder) -> None:
        """Raise RenderError unless it reads the features of `encoder`."""
        features = self.sizes.features
        if (width := encoder.width(features)) != self.sizes.image_width:
            raise RenderError(
                f"the IP-Adapter {self.name} reads {self.sizes.image_width} numbers of {features} image features, and "
                f"the image encoder {encoder.name} makes {width}: use the encoder that it was published with"
            )


def load(path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom = lambda _: None) -> IPAdapter:
    """Return the IP-Adapter in the file at `path`, resident on `device`; strict as a checkpoint's load, and raises the
    same. `dtype` is that of the U-Net.
    """
    return explained(f"the IP-Adapter {path.name}", partial(_load, path, device, dtype, make_room))


def _load(path: Path, device: Device, dtype: torch.dtype, make_room: MakeRoom) -> IPAdapter:
    from worker.engine.loading import networks  # noqa: PLC0415 - diffusers takes seconds

    part = files.read(path)
    network = networks.build_ip_adapter(part)
    fill_alone(network, part, dtype, device, make_room)
    return IPAdapter(path.stem, files.sizes(part), network)


class _Group(NamedTuple):
    """Rows of a call that read image prompts of one length."""

    rows: Tensor  # places in the call
    read: Tensor  # [rows, tokens, keys and values of all layers]
    weights: Tensor  # [rows, 1, 1]


@contextmanager
def prompted(unet: nn.Module, rows: Sequence[Sequence[ImagePrompt]], device: Device) -> Iterator[None]:
    """Within the block, each cross-attention of a call of `unet` attends to the image prompts of each row too.

    Several are added one after the other, in their order. For one thread at a time: the engine's.
    """
    groups, first, hooks = _grouped(rows, device), 0, []
    for layer in _cross_attentions(unet) if groups else ():
        width = layer.to_k.weight.shape[0]
        parts = [one._replace(read=one.read[..., first : first + 2 * width]) for one in groups]
        attention = _Attention(layer.heads, parts)
        hooks += [
            layer.to_q.register_forward_hook(attention.take_query),
            layer.to_out[0].register_forward_pre_hook(attention.add),
        ]
        first += 2 * width
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Attention:
    """The attention of one layer to image prompts, between its query and its last matrix."""

    def __init__(self, heads: int, groups: Sequence[_Group]) -> None:
        self._heads = heads
        self._groups = groups
        self._query: Tensor | None = None

    def take_query(self, _layer: nn.Module, _arguments: object, query: Tensor) -> None:
        self._query = query

    def add(self, _layer: nn.Module, arguments: tuple[Tensor]) -> None:
        """Add to what each row has read of its text [rows, places, width], in place: the other rows stay as they are.

        The tensor is the attention's own.
        """
        (attended,), query = arguments, self._query
        self._query = None  # the others of the call would wait in memory
        if query is None:
            return
        for rows, read, weights in self._groups:
            queries = query.index_select(0, rows)
            heads = [self._by_head(one) for one in (queries, *read.chunk(2, dim=-1))]
            found = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
            added = found.transpose(1, 2).reshape(queries.shape)
            attended.index_add_(0, rows, weights.to(added.dtype) * added)

    def _by_head(self, tensor: Tensor) -> Tensor:
        """Return a tensor [rows, places, width] as [rows, heads, places, width of a head]."""
        rows, places, width = tensor.shape
        return tensor.view(rows, places, self._heads, width // self._heads).transpose(1, 2)


def _grouped(rows: Sequence[Sequence[ImagePrompt]], device: Device) -> list[_Group]:
    """Return the groups of a call in the order in which they are added.

    On a CPU each row is one by itself, so that its bits do not depend on its company.
    """
    found: dict[tuple[int, int, int], list[tuple[int, ImagePrompt]]] = {}
    for place, row in enumerate(rows):
        for turn, prompt in enumerate(row):
            key = turn, len(prompt.read), place if device.kind == "cpu" else 0
            found.setdefault(key, []).append((place, prompt))
    ordered = sorted(found.items(), key=lambda item: item[0][0])
    return [_group(members, device) for _, members in ordered]


def _group(members: Sequence[tuple[int, ImagePrompt]], device: Device) -> _Group:
    places, prompts = zip(*members, strict=True)
    weights = torch.tensor([one.weight for one in prompts])[:, None, None]
    read = torch.stack([one.read for one in prompts])
    return _Group(to_device(torch.tensor(places), device), read, to_device(weights, device))


def _cross_attentions(unet: nn.Module) -> list[Any]:
    """Return the layers of a U-Net that read the text, in the order by which IP-Adapters number them."""
    return [one.layer for one in attentions(unet) if one.path.endswith(_CROSS_ATTENTION)]


def _form(widths: Sequence[int], context: int) -> str:
    """Return the cross-attention of a U-Net in words."""
    different = ", ".join(map(str, dict.fromkeys(widths))) or "none"
    return f"{len(widths)} cross-attentions of the widths {different}, which read texts of {context}"
