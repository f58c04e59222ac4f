"""Converted checkpoints in the host's memory: a card gets one back in the time of a copy."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from worker.engine import transfers
from worker.engine.architectures.parts import Parts
from worker.engine.devices import Device
from worker.engine.loading.converted import Converted, converting, shapes
from worker.engine.loading.flat import Layout
from worker.engine.loading.loader import Spare

Key = tuple[str, torch.dtype]
"""A checkpoint's SHA-256, and the number format of its U-Net."""


class HostCache:
    """At most `most_bytes` of converted checkpoints for one card, pinned if the host allows it. The least recently used
    leave first.

    It belongs to the loader's thread; other threads may only use `in` and `bytes`. `keep` and `prefetch` go step by
    step; if they are closed before the end, nothing is cached.
    """

    def __init__(self, most_bytes: int, device: Device) -> None:
        self.most_bytes = most_bytes
        self._device = device
        self._checkpoints: OrderedDict[Key, Converted] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._checkpoints

    @property
    def bytes(self) -> int:
        """How much of the host's memory it takes now."""
        checkpoints = tuple(self._checkpoints.values())  # at once: the loader's thread may change them meanwhile
        return sum(sum(_booked(checkpoint.layouts)) for checkpoint in checkpoints)

    def get(self, key: Key) -> Converted | None:
        """Return a checkpoint, which is then the most recently used; None if it is not cached."""
        if key in self._checkpoints:
            self._checkpoints.move_to_end(key)
        return self._checkpoints.get(key)

    def forget(self, key: Key) -> None:
        """Remove a checkpoint."""
        self._checkpoints.pop(key, None)

    def keep(self, key: Key, on_card: Callable[[], Converted | None]) -> Spare:
        """Cache a checkpoint of the card, a network a step. Each step calls `on_card` for it; None, if it has left the
        card, ends the steps. Between steps no reference to the card's memory is held.
        """
        loaded = on_card()
        if loaded is None or key in self or not self._make_room(loaded.layouts):
            return
        tables = loaded.tables and (loaded.tables[0], loaded.tables[1].cpu())
        without_buffers, buffers = replace(loaded, buffers={}, tables=tables), {}
        del loaded
        for network, layout in without_buffers.layouts.items():
            buffers[network] = transfers.pinned_bytes(layout.bytes, self._device)
            yield
            if (loaded := on_card()) is None:
                return
            transfers.read_into(buffers[network], loaded.buffers[network])
            del loaded
            yield
        self._checkpoints[key] = replace(without_buffers, buffers=buffers)

    def prefetch(self, key: Key, parts: Parts, layouts: Mapping[str, Layout]) -> Spare:
        """Cache a checkpoint from a file, converted on the host, some megabytes a step."""
        buffers = {}
        if key in self or not self._make_room(layouts):
            return
        for network, part in parts.networks.items():
            buffers[network] = transfers.pinned_bytes(layouts[network].bytes, self._device)
            yield from converting(part, layouts[network], buffers[network])
        self._checkpoints[key] = Converted(shapes(parts), layouts, buffers)

    def _make_room(self, layouts: Mapping[str, Layout]) -> bool:
        """Drop the least recently used until these fit; return False if they are larger than the whole cache."""
        needed, dropped = _booked(layouts), [0]
        if sum(needed) > self.most_bytes:
            return False
        while sum(needed) + self.bytes > self.most_bytes:
            _, oldest = self._checkpoints.popitem(last=False)
            dropped = _booked(oldest.layouts)
            del oldest
        if dropped not in ([0], needed):  # else the same buffers are used again
            transfers.release_pinned_memory()
        return True


def _booked(layouts: Mapping[str, Layout]) -> list[int]:
    """Return the sizes of the buffers on the host, the smallest first: PyTorch pins powers of two."""
    return sorted(1 << max(0, layout.bytes - 1).bit_length() for layout in layouts.values())
