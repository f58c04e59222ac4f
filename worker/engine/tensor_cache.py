"""Tensors that later calls of the same network use again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class TensorCache(Generic[T]):
    """Tensors, or groups of them, by key: at most `most` of them, or of what `size` returns for each, added up.

    The least recently used leave first. `size` is that of all values; any thread may read it.
    """

    def __init__(self, most: int, size: Callable[[T], int] = lambda _: 1) -> None:
        self.size = 0
        self._most = most
        self._size_of = size
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        """Return the value of `key`, or None if it is not cached."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: Hashable, value: T) -> None:
        """Cache `value`, whose tensors must not be views of a whole batch."""
        if key in self._values:
            self.size -= self._size_of(self._values.pop(key))
        self._values[key] = value
        self.size += self._size_of(value)
        while self.size > self._most:
            _, oldest = self._values.popitem(last=False)
            self.size -= self._size_of(oldest)
