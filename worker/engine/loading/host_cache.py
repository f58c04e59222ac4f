"""Checkpoints that are kept in the host's memory, converted: a card has one again in the time of a copy."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from worker.engine import transfers
from worker.engine.devices import Device
from worker.engine.loading.converted import Converted, converting, named, shapes
from worker.engine.loading.flat import Layout
from worker.engine.loading.loader import Spare

if TYPE_CHECKING:  # diffusers takes seconds
    from worker.engine.loading.layouts import Parts

Key = tuple[str, torch.dtype]
"""A checkpoint's SHA-256, and the number format of its U-Net."""


class HostCache:
    """At most `most_bytes` of converted checkpoints for one card, pinned where the host allows it; the longest unused
    leaves first.

    It belongs to the loader's thread; others may ask for `in`. `keep` and `prefetch` go step by step, and what is given
    up on the way has kept nothing.
    """

    def __init__(self, most_bytes: int, device: Device) -> None:
        self.most_bytes = most_bytes
        self._device = device
        self._kept: OrderedDict[Key, Converted] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    @property
    def bytes(self) -> int:
        """What it takes of the host's memory now."""
        return sum(sum(_booked(kept.layouts)) for kept in self._kept.values())

    def get(self, key: Key) -> Converted | None:
        """Return a checkpoint if it is kept, which is then the one used last."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def forget(self, key: Key) -> None:
        """Keep a checkpoint no longer."""
        self._kept.pop(key, None)

    def keep(self, key: Key, on_card: Callable[[], Converted | None]) -> Spare:
        """Keep what lies on the card, a network a step. `on_card` is asked at each: None where it has left, which ends
        it. Between steps nothing of the card is held.
        """
        loaded = on_card()
        if loaded is None or key in self or not self._make_room(loaded.layouts):
            return
        tables = loaded.tables and (loaded.tables[0], loaded.tables[1].cpu())
        kept, buffers = replace(loaded, buffers={}, tables=tables), {}
        del loaded
        for network, layout in kept.layouts.items():
            buffers[network] = transfers.pinned_bytes(layout.bytes, self._device)
            yield
            if (loaded := on_card()) is None:
                return
            transfers.read_into(buffers[network], loaded.buffers[network])
            del loaded
            yield
        self._kept[key] = replace(kept, buffers=buffers)

    def prefetch(self, key: Key, parts: Parts, layouts: Mapping[str, Layout]) -> Spare:
        """Keep what a file holds, which is converted on the host, some megabytes a step."""
        buffers = {}
        if key in self or not self._make_room(layouts):
            return
        for network, part in named(parts).items():
            buffers[network] = transfers.pinned_bytes(layouts[network].bytes, self._device)
            yield from converting(part, layouts[network], buffers[network])
        self._kept[key] = Converted(shapes(parts), layouts, buffers)

    def _make_room(self, layouts: Mapping[str, Layout]) -> bool:
        """Drop the longest unused until these find room; False where they are more than may be kept at all."""
        needed, dropped = _booked(layouts), [0]
        if sum(needed) > self.most_bytes:
            return False
        while sum(needed) + self.bytes > self.most_bytes:
            _, kept = self._kept.popitem(last=False)
            dropped = _booked(kept.layouts)
            del kept
        if dropped not in ([0], needed):  # else what was dropped is taken again as it is
            transfers.release_pinned_memory()
        return True


def _booked(layouts: Mapping[str, Layout]) -> list[int]:
    """What the buffers take of the host, the smallest first: PyTorch rounds what it pins up to a power of two."""
    return sorted(1 << max(0, layout.bytes - 1).bit_length() for layout in layouts.values())
