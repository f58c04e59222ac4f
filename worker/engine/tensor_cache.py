"""Tensors that later calls of the same network use again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class TensorCache(Generic[T]):
    """Tensors, or groups of them, by key: at most `most` of them, or of what `size` returns for each, added up.

    The least recently used leave first.
    """

    def __init__(self, most: int, size: Callable[[T], int] = lambda _: 1) -> None:
        self._most = most
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
        self._values.move_to_end(key)
        while sum(map(self._size, self._values.values())) > self._most:
            self._values.popitem(last=False)
