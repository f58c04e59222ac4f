"""The memory that resident models take, and the budget for it. A network that several models share counts once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

from worker.render.model_cache import Model


class Residency:
    """Says which models may be resident together: at most `budget()` bytes, and at most so many checkpoints.

    Threads may share it. A model counts by its latest `weigh`; before that, it takes nothing.
    """

    def __init__(self, budget: Callable[[], float], most_checkpoints: int | None = None) -> None:
        self.budget = budget
        self._most_checkpoints = math.inf if most_checkpoints is None else most_checkpoints
        self._networks: dict[Model, Mapping[str, int]] = {}
        self._lock = Lock()
        self._remembered = Counter[Model]()  # by how many images

    def weigh(self, model: Model, networks: Mapping[str, int]) -> None:
        """Record the bytes of each network of `model`; networks of the same key are one network in memory."""
        self._networks[model] = networks

    @contextmanager
    def remembered(self, models: Collection[Model]) -> Iterator[None]:
        """Forget none of `models` within the block: an image counts them while it waits for them."""
        with self._lock:
            self._remembered.update(models)
        try:
            yield
        finally:
            with self._lock:
                self._remembered.subtract(models)
                self._remembered = +self._remembered

    def forget_merged(self, resident: Callable[[], Collection[Model]]) -> None:
        """Forget merged sets that are neither `resident()` nor remembered: each weight makes another one, endlessly."""
        with self._lock:  # so that no image begins to count on a set meanwhile
            stay = {*self._remembered, *resident()}
            for model in [model for model in tuple(self._networks) if model.kind == "merged" and model not in stay]:
                del self._networks[model]

    def networks(self, model: Model) -> Mapping[str, int]:
        """Return the bytes of each network of `model`; none if it was not weighed yet."""
        return self._networks.get(model, {})

    def bytes_of(self, models: Collection[Model]) -> int:
        """Return the bytes that `models` take together."""
        together: dict[str, int] = {}
        for model in models:
            together.update(self.networks(model))
        return sum(together.values())

    def fits(self, models: Collection[Model]) -> bool:
        """Return whether `models` may be resident together."""
        checkpoints = sum(model.checkpoint is not None for model in models)
        return checkpoints <= self._most_checkpoints and self.bytes_of(models) <= self.budget()
