"""The model files in memory: each is loaded once for all images that wait for it; the longest unused leaves first."""

from __future__ import annotations

import gc
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition
from typing import Final, Generic, TypeVar, cast

from shared.errors import Cancelled, OutOfMemory
from shared.models.kinds import Kind
from worker.in_flight import Cancellation

_CANCELLED: Final = "The image was cancelled while it waited for its checkpoint."

W = TypeVar("W")  # the engine's Weights or a VAE; this module only keeps them


@dataclass(frozen=True, order=True)
class Model:
    """A model file by its kind and its SHA-256."""

    kind: Kind
    sha256: str


@dataclass
class _Resident(Generic[W]):
    """One model: `weights` is None while it is loaded; it is not dropped while it has `users`."""

    weights: W | None = None
    users: int = 0


class ModelCache(Generic[W]):
    """At most `capacity` models of each kind; `load` is called outside of any lock, once a model at a time.

    An image takes all models that it needs at once, so two images cannot wait for each other. An image that needs more
    models than `capacity` gets them while nobody uses others.
    """

    def __init__(
        self,
        load: Callable[[Model, Cancellation], W],
        capacity: int,
        on_change: Callable[[], object] | None = None,
    ) -> None:
        self._load = load
        self._capacity = capacity
        self._on_change = on_change or (lambda: None)
        self._residents: OrderedDict[Model, _Resident[W]] = OrderedDict()  # longest unused first
        self._changed = Condition()
        self._is_loading = False

    def resident(self) -> list[str]:
        """Return the SHA-256 of the checkpoints that are loaded."""
        with self._changed:
            loaded = [model for model, resident in self._residents.items() if resident.weights is not None]
            return [model.sha256 for model in loaded if model.kind == "checkpoint"]

    def missing(self, models: Iterable[Model]) -> list[Model]:
        """Return which of `models` are not loaded, checkpoints first."""
        with self._changed:
            return sorted(one for one in models if one not in self._residents or self._residents[one].weights is None)

    def drop_unused(self, bytes_of: Callable[[Model], int] = lambda _: 0, enough_bytes: float = math.inf) -> bool:
        """Drop unused models, the longest unused first, until `enough_bytes` are free; return whether there were."""
        dropped, freed = list[Model](), 0
        with self._changed:
            for model in [model for model, resident in self._residents.items() if resident.users == 0]:
                if freed >= enough_bytes:
                    break
                del self._residents[model]
                dropped.append(model)
                freed += bytes_of(model)
        if dropped:
            self._on_change()
        return bool(dropped)

    @contextmanager
    def use(
        self, models: Collection[Model], cancel: Cancellation, report: Callable[[Model], object] = lambda _: None
    ) -> Iterator[Mapping[Model, W]]:
        """Hold the weights of `models` within the block; missing ones are loaded, with a `report` before each.

        Waits while others load, because loads go one at a time, and for room while all residents are in use. Raises
        Cancelled if `cancel` is set meanwhile, and the errors of `load`; OutOfMemory only if dropping unused models did
        not help.
        """
        cancel.then(self._wake)
        residents, missing = self._enter(models, cancel)
        try:
            self._load_all({model: residents[model] for model in sorted(missing)}, report, cancel)
            yield {model: cast("W", resident.weights) for model, resident in residents.items()}
        finally:
            with self._changed:
                for resident in residents.values():
                    resident.users -= 1
                self._changed.notify_all()

    def _enter(self, models: Collection[Model], cancel: Cancellation) -> tuple[dict[Model, _Resident[W]], set[Model]]:
        """Return the residents, with the caller counted as a user, and the models that the caller has to load."""
        with self._changed:
            while True:
                if cancel.is_set:
                    raise Cancelled(_CANCELLED)
                known = {model: self._residents[model] for model in models if model in self._residents}
                is_loading = any(resident.weights is None for resident in known.values())
                if not is_loading and self._make_room(models):
                    return self._taken(models), set(models) - known.keys()
                self._changed.wait()

    def _taken(self, models: Collection[Model]) -> dict[Model, _Resident[W]]:
        taken: dict[Model, _Resident[W]] = {}
        for model in models:
            taken[model] = self._residents.setdefault(model, _Resident())
            taken[model].users += 1
            self._residents.move_to_end(model)
        return taken

    def _make_room(self, models: Collection[Model]) -> bool:
        """Drop the longest unused until all of `models` fit; return False while too many others are in use."""
        return all(self._make_room_for(kind, models) for kind in {model.kind for model in models})

    def _make_room_for(self, kind: Kind, models: Collection[Model]) -> bool:
        wanted = {model for model in models if model.kind == kind}
        others = [model for model in self._residents if model.kind == kind and model not in wanted]
        surplus = len(others) + len(wanted) - max(self._capacity, len(wanted))
        if wanted <= self._residents.keys():
            return True
        unused = [model for model in others if self._residents[model].users == 0][: max(0, surplus)]
        for model in unused:
            del self._residents[model]
        return len(unused) >= surplus

    def _load_all(
        self, missing: Mapping[Model, _Resident[W]], report: Callable[[Model], object], cancel: Cancellation
    ) -> None:
        """Load the missing models one after the other; if one fails, images that wait for it load it themselves."""
        try:
            for model, resident in missing.items():
                report(model)
                with self._loading(cancel):
                    self._load_one(model, resident, cancel)
        except BaseException:
            with self._changed:
                for model in [model for model, resident in missing.items() if resident.weights is None]:
                    del self._residents[model]
                self._changed.notify_all()
            raise

    @contextmanager
    def _loading(self, cancel: Cancellation) -> Iterator[None]:
        """Within the block nobody else loads. Raises Cancelled if `cancel` is set while it waits for that."""
        with self._changed:
            self._changed.wait_for(lambda: cancel.is_set or not self._is_loading)
            if cancel.is_set:
                raise Cancelled(_CANCELLED)
            self._is_loading = True
        try:
            yield
        finally:
            with self._changed:
                self._is_loading = False
                self._changed.notify_all()

    def _load_one(self, model: Model, resident: _Resident[W], cancel: Cancellation) -> None:
        weights = self._loaded(model, cancel)
        with self._changed:
            resident.weights = weights
            self._changed.notify_all()
        self._on_change()

    def _loaded(self, model: Model, cancel: Cancellation) -> W:
        try:
            return self._load(model, cancel)
        except OutOfMemory:  # perhaps because of models that are unused now
            self.drop_unused()
        gc.collect()  # objects that only a cycle of references still holds
        return self._load(model, cancel)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
