"""The memory that resident models take, and the budget for it. A network that several models share counts once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

from worker.render.model_cache import Model


class Residency:
    """Says which models may be resident together: at most `budget()` bytes, and at most so many checkpoints.

    Threads may share it. A model counts by its latest `weigh`; before that, it takes nothing.
    """

    def __init__(self, budget: Callable[[], float], most_checkpoints: int | None = None) -> None:
        self.budget = budget
        self._most_checkpoints = math.inf if most_checkpoints is None else most_checkpoints
        self._networks: dict[Model, Mapping[str, int]] = {}

    def weigh(self, model: Model, networks: Mapping[str, int]) -> None:
        """Record the bytes of each network of `model`; networks of the same key are one network in memory."""
        self._networks[model] = networks

    def forget_merged(self, *, but: Collection[Model]) -> None:
        """Forget merged sets other than these: there may be endlessly many, because each weight makes another one."""
        for model in [model for model in tuple(self._networks) if model.kind == "merged" and model not in but]:
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
