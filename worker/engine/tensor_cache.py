"""Tensors that later calls of the same network use again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class TensorCache(Generic[T]):
    """At most `size` tensors, or groups of them, by key. The least recently used leave first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        """Return the value of `key`, or None if it is not cached."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: Hashable, value: T) -> None:
        """Cache `value`, whose tensors must not be views of a whole batch."""
        self._values[key] = value
        if len(self._values) > self._size:
            self._values.popitem(last=False)
