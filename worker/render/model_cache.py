"""The model files in memory: each is loaded once for all images that wait for it; the longest unused leaves first."""

from __future__ import annotations

import gc
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count, takewhile
from threading import Condition
from typing import Final, Generic, Literal, Self, TypeVar, cast

from shared.errors import Cancelled, OutOfMemory
from shared.models.kinds import Kind
from shared.models.model_set import Merge
from worker.in_flight import Cancellation

_CANCELLED: Final = "The image was cancelled while it waited for its checkpoint."

W = TypeVar("W")  # the engine's Weights or a VAE; this module only keeps them


@dataclass(frozen=True, order=True)
class Model:
    """A model file by its kind and its SHA-256; or a checkpoint with adapters merged into it, by a digest of all."""

    kind: Kind | Literal["merged"]
    sha256: str
    base: Model | None = field(default=None, compare=False)  # is in memory while this one is loaded
    merges: tuple[Merge, ...] = field(default=(), compare=False)  # into `base`

    @classmethod
    def merged(cls, base: Model, merges: tuple[Merge, ...]) -> Self:
        """Return a checkpoint with adapters merged into it."""
        parts = [f"{one.sha256} {one.text_encoder!r} {one.unet!r}" for one in merges]
        return cls("merged", sha256(" ".join([base.sha256, *parts]).encode()).hexdigest(), base, merges)

    @property
    def files(self) -> tuple[str, ...]:
        """The SHA-256 of the files that its load reads."""
        return tuple(dict.fromkeys(one.sha256 for one in self.merges)) or (self.sha256,)

    @property
    def checkpoint(self) -> str | None:
        """The SHA-256 of the checkpoint that images are rendered with by this model; None: it is none."""
        is_checkpoint = self.kind in {"checkpoint", "merged"}
        return (self.base or self).sha256 if is_checkpoint else None

    @property
    def depth(self) -> int:
        """How many models are loaded one after the other before this one."""
        return self.base.depth + 1 if self.base else 0


@dataclass(eq=False)
class _Visit:
    """One image that uses models, or waits for them."""

    number: int  # in the order of arrival
    needed: frozenset[Model]
    cancel: Cancellation
    models: frozenset[Model] = frozenset()  # that it uses now; until its loads end, also their bases
    shared: list[object] = field(default_factory=list)  # what its loads may take over, held until they end


class ModelCache(Generic[W]):
    """As many models as `fits` says may be resident together; `load` is called outside of any lock, one at a time.

    An image takes all models that it needs at once, and only when it can load what is missing at once, so two images
    cannot wait for each other, and nothing leaves for an image that then has to wait. An image whose models do not fit
    even by themselves gets them while nobody uses others. What `shared_with` says that its loads may take over is held
    from before other models leave for it until its loads end; an image that waits holds nothing.

    The base of a model is held only while that model is loaded. Then it leaves, unless all fit together.

    Images that wait are let in by arrival. A later one goes first only if that cannot hold an earlier one up: what the
    later ones use then fits beside what the earlier one waits for.
    """

    def __init__(
        self,
        load: Callable[[Model, Cancellation], W],
        fits: Callable[[Collection[Model]], bool],
        on_change: Callable[[], object] | None = None,
        shared_with: Callable[[Collection[Model]], Iterable[object]] = lambda _: (),
    ) -> None:
        self._load = load
        self._fits = fits
        self._on_change = on_change or (lambda: None)
        self._shared_with = shared_with
        self._residents: OrderedDict[Model, W | None] = OrderedDict()  # longest unused first; None: it is being loaded
        self._changed = Condition()
        self._numbers = count()
        self._waiting: list[_Visit] = []  # by arrival
        self._inside: list[_Visit] = []
        self._loading: _Visit | None = None  # the image whose missing models are being loaded

    def resident(self) -> list[str]:
        """Return what lanes are called by: the SHA-256 of the checkpoints that are loaded, with adapters merged into
        them or without, and of the upscalers.
        """
        names = (model.sha256 if model.kind == "upscaler" else model.checkpoint for model in self.models())
        return list(dict.fromkeys(filter(None, names)))

    def models(self, *, with_loading: bool = False) -> list[Model]:
        """Return the models that are loaded, the longest unused first; `with_loading` also those that come now."""
        with self._changed:
            return [model for model, weights in self._residents.items() if with_loading or weights is not None]

    def missing(self, models: Iterable[Model]) -> list[Model]:
        """Return which of `models`, and of the bases that their loads need, are not loaded, in the order of loads."""
        loaded = self.models()
        return _ordered(_with_bases(models, loaded) - set(loaded))

    def drop_unused(
        self, bytes_of: Callable[[Collection[Model]], int] = lambda _: 0, enough_bytes: float = math.inf
    ) -> bool:
        """Drop unused models, the longest unused first, until `enough_bytes` are free; return whether there were.

        `bytes_of` says what models take together.
        """
        with self._changed:
            before, dropped = bytes_of(self._residents), False
            for model in self._unused():
                if before - bytes_of(self._residents) >= enough_bytes:
                    break
                del self._residents[model]
                dropped = True
        if dropped:
            self._on_change()
        return dropped

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
        visit = _Visit(next(self._numbers), frozenset(models), cancel)
        missing = self._enter(visit)
        try:
            self._load_all(visit, missing, report)
            with self._changed:
                held = {model: cast("W", self._residents[model]) for model in visit.needed}
            yield held
        finally:
            with self._changed:
                self._inside.remove(visit)
                self._changed.notify_all()

    def _enter(self, visit: _Visit) -> list[Model]:
        """Wait until `visit` may use its models, and return those that it has to load at once."""
        with self._changed:
            self._waiting.append(visit)
            try:
                while (leaving := self._leaving_for(visit)) is None:
                    self._changed.wait()
                return self._admit(visit, leaving)
            finally:
                self._waiting.remove(visit)
                self._changed.notify_all()

    def _leaving_for(self, visit: _Visit) -> list[Model] | None:
        """Return the models that leave if `visit` is the first image that may enter now; None if it is not.

        Raises Cancelled.
        """
        if visit.cancel.is_set:
            raise Cancelled(_CANCELLED)
        waiting = (one for one in self._waiting if not one.cancel.is_set)
        may_enter = ((one, leaving) for one in waiting if (leaving := self._room_for(one)) is not None)
        first, leaving = next(may_enter, (None, None))
        return leaving if first is visit else None

    def _room_for(self, visit: _Visit) -> list[Model] | None:
        """Return the models that leave when `visit` enters; None if it may not enter now."""
        wanted = self._wanted(visit)
        known = [model for model in wanted if model in self._residents]
        if any(self._residents[model] is None for model in known):
            return None
        leaving: list[Model] | None = []
        if len(known) < len(wanted):
            leaving = None if self._loading else self._surplus(wanted)
        return None if leaving is None or not self._holds_up_nobody(visit) else leaving

    def _wanted(self, visit: _Visit) -> frozenset[Model]:
        """Return what an image that waits would use now."""
        return _with_bases(visit.needed, self._residents)

    def _surplus(self, wanted: frozenset[Model]) -> list[Model] | None:
        """Return the models that have to leave for those that are `wanted`; None: too many are in use."""
        stay, leave = self._residents.keys() | wanted, list[Model]()
        candidates = (model for model in self._unused() if model not in wanted)
        while stay != wanted and not self._fits(stay):  # asked once for each set: a budget may move meanwhile
            if (model := next(candidates, None)) is None:
                return None
            stay.remove(model)
            leave.append(model)
        return leave

    def _holds_up_nobody(self, visit: _Visit) -> bool:
        """Return whether each image that came earlier will find room although `visit` and later ones are inside."""
        for earlier in takewhile(lambda one: one is not visit, self._waiting):
            later = (one.models for one in self._inside if one.number > earlier.number)
            in_use, wanted = self._wanted(visit).union(*later), self._wanted(earlier)
            if not (earlier.cancel.is_set or in_use <= wanted or self._fits(in_use | wanted)):
                return False
        return True

    def _unused(self) -> list[Model]:
        in_use = frozenset[Model]().union(*(visit.models for visit in self._inside))
        return [model for model in self._residents if model not in in_use]

    def _admit(self, visit: _Visit, leaving: Iterable[Model]) -> list[Model]:
        """Let `visit` in. `leaving` is the answer that let it in, because `fits` may answer otherwise by now."""
        visit.models = self._wanted(visit)
        missing = _ordered(visit.models - self._residents.keys())
        if missing:
            self._loading = visit
            visit.shared.extend(self._shared_with(missing))
        for model in leaving:
            del self._residents[model]
        self._residents.update(dict.fromkeys(missing))
        for model in sorted(visit.models):
            self._residents.move_to_end(model)
        self._inside.append(visit)
        return missing

    def _load_all(self, visit: _Visit, missing: Collection[Model], report: Callable[[Model], object]) -> None:
        """Load the missing models one after the other; if one fails, images that wait for it load it themselves."""
        if not missing:
            return
        try:
            for model in missing:
                report(model)
                weights = self._loaded(model, visit)
                with self._changed:
                    self._residents[model] = weights
                    self._changed.notify_all()
                self._on_change()
        finally:
            visit.shared.clear()
            with self._changed:
                self._loading = None
                for model in [model for model in missing if self._residents[model] is None]:
                    del self._residents[model]
                visit.models = visit.models.intersection(self._residents)  # what failed is not in use from now on
                self._changed.notify_all()
        self._release_bases(visit)

    def _release_bases(self, visit: _Visit) -> None:
        """Drop the bases that only the loads of `visit` used, until all that is left fits together."""
        with self._changed:
            bases, visit.models = visit.models - visit.needed, visit.needed
            resident = len(self._residents)
            for model in [model for model in self._unused() if model in bases]:
                if not self._fits(self._residents):
                    del self._residents[model]
            is_changed = len(self._residents) < resident
            self._changed.notify_all()
        if is_changed:
            self._on_change()

    def _loaded(self, model: Model, visit: _Visit) -> W:
        try:
            return self._load(model, visit.cancel)
        except OutOfMemory:  # perhaps because of models that are unused now, or of networks that did not suit
            visit.shared.clear()
            self.drop_unused()
        gc.collect()  # objects that only a cycle of references still holds
        return self._load(model, visit.cancel)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _with_bases(models: Iterable[Model], resident: Container[Model]) -> frozenset[Model]:
    """Return `models`, and the bases of those that are not resident, as loads need them."""
    found, left = set[Model](), list(models)
    while left:
        model = left.pop()
        found.add(model)
        if model.base and model not in resident:
            left.append(model.base)
    return frozenset(found)


def _ordered(models: Iterable[Model]) -> list[Model]:
    """Return `models` in the order in which they are loaded: bases first."""
    return sorted(models, key=lambda model: (model.depth, model))
