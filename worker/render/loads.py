"""Model files on their way to a card: one at a time, on the loader's thread, told to whoever waits or watches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeVar
from weakref import WeakKeyDictionary, ref

import structlog
import torch
from torch import nn

from shared.errors import Cancelled, RenderError, Unavailable
from worker.engine import devices
from worker.engine.devices import Device
from worker.engine.loading import load as checkpoints
from worker.engine.loading.converted import Converted
from worker.engine.loading.host_cache import HostCache, Key
from worker.engine.loading.loader import Loader
from worker.engine.loop import limits
from worker.engine.weights import Weights
from worker.in_flight import Cancellation
from worker.render import page_cache
from worker.render.local_models import Found, LocalModels
from worker.render.memory_meter import MemoryMeter
from worker.render.model_cache import Model
from worker.supervisor.watchdog import READS_DECODER, Watchdog

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    Loaded = Weights | AutoencoderKL

log = structlog.get_logger(__name__)

T = TypeVar("T")
Origin = Literal["disk", "page cache", "host cache"]
"""Where what is loaded lies before: the slower, the earlier."""

# What a load is told to take until one was measured: the libraries' import, then what hardware mostly does.
_FIRST_LOAD_SECONDS: Final = 5.0
_BYTES_A_SECOND: Final[dict[Origin, float]] = {"disk": 500e6, "page cache": 1.5e9, "host cache": 10e9}
_WORDS: Final[dict[Origin, str]] = {"disk": "from disk", "page cache": "from memory", "host cache": "from memory"}
_LABELS: Final = {"vae": "VAE"}
_PAUSE_SECONDS: Final = 60.0  # until a prefetch that failed is tried again


@dataclass
class Loads:
    """What a card loads, with the checkpoints that the host keeps for it."""

    device: Device
    dtype: torch.dtype
    files: LocalModels
    meter: MemoryMeter
    watchdog: Watchdog
    cache: HostCache
    on_change: Callable[[], object]
    drop_unused: Callable[[float], object]  # is told on the loader's thread which bytes the card lacks for a load

    load_seconds: float | None = None  # of the latest checkpoint that was read from its file
    _loader: Loader = field(init=False)
    _phases: dict[str, str] = field(default_factory=dict)  # SHA-256 -> phase, in the order of the loads
    _seconds: dict[Origin, float] = field(default_factory=dict)  # of the latest checkpoint from there, measured
    _sizes: dict[Model, int] = field(default_factory=dict)
    # What lies on the card as long as it does, and what of it the host is still to keep.
    _held: WeakKeyDictionary[Weights, Converted] = field(default_factory=WeakKeyDictionary)
    _unkept: dict[Key, ref[Converted]] = field(default_factory=dict)
    _put_off: dict[str, float] = field(default_factory=dict)  # SHA-256 -> monotonic time of the next try to prefetch it

    def __post_init__(self) -> None:
        self._loader = Loader(self.device)
        self._loader.start()

    def stop(self) -> None:
        """Stop after what is loaded now."""
        self._loader.stop()

    @property
    def keeps_some(self) -> bool:
        """Whether the host keeps checkpoints for this card."""
        return self.cache.most_bytes > 0

    def phase(self) -> str:
        """Return what is being loaded, for people; "" for nothing."""
        return next(iter(tuple(self._phases.values())), "")

    def bytes_of(self, model: Model) -> int:
        """Return what `model` takes of the card; 0 where it was never loaded."""
        return self._sizes.get(model, 0)

    def load(self, model: Model, cancel: Cancellation) -> Loaded:
        """Return `model`, loaded beside the steps of others. Raises RenderError, and Cancelled where `cancel` is set
        before its turn came.
        """
        found = self.files.find(model.sha256)
        self._phases[model.sha256] = self._phase(model, found)
        self.on_change()
        try:
            loaded = _awaited(self._ask(partial(self._loaded, model, found)), cancel)
            self.files.loaded(found)
        finally:
            del self._phases[model.sha256]
        return loaded

    def ask_decoder(self, found: Found) -> Future[nn.Module]:
        """Return what will be of a tiny decoder, loaded beside the steps of others. Raises RenderError."""
        return self._ask(partial(self._decoder, found))

    def phase_of(self, model: Model) -> str:
        """Return what loading `model` is called now, for people. Raises RenderError."""
        return self._phase(model, self.files.find(model.sha256))

    def prefetch(self, sha256: str) -> None:
        """Have a checkpoint ready on the host when it is wanted, if there is time until then. Returns at once."""
        key = (sha256, self.dtype)
        is_late = sha256 in self._phases or key in self.cache
        is_put_off = time.monotonic() < self._put_off.get(sha256, 0.0)
        if self.keeps_some and not (is_late or is_put_off or self._loader.has_spare):
            self._loader.add_spare(self._prefetched(key))

    def _ask(self, load: Callable[[], T]) -> Future[T]:
        return self._loader.ask(partial(self._then_keep, load))

    # On the loader's thread.

    def _then_keep(self, load: Callable[[], T]) -> T:
        """What `load` returns. It broke off what the host was keeping, which goes on after it."""
        try:
            return load()
        finally:
            if self._unkept:
                self._loader.add_spare(self._keeping())

    def _loaded(self, model: Model, found: Found) -> Loaded:
        origin, started = self._origin(model, found), time.monotonic()
        with self._busy(model.sha256, "load", found), self.meter.other():
            loaded = self._checkpoint(found) if model.kind == "checkpoint" else self._vae(found)
        seconds = time.monotonic() - started
        self._sizes[model] = _bytes(loaded)
        if model.kind == "checkpoint":
            self._seconds[origin] = seconds
            self.load_seconds = self.load_seconds if origin == "host cache" else seconds
        told = {"kind": model.kind, "name": found.name, "sha256": model.sha256, "seconds": round(seconds, 3)}
        log.info("model loaded", origin=origin, **told)
        return loaded

    def _checkpoint(self, found: Found) -> Weights:
        key = (found.sha256, self.dtype)
        if kept := self.cache.get(key):
            return checkpoints.load_cached(found.path, kept, self.device, self._make_room)
        on_card: list[Converted] = []
        weights = checkpoints.load(found.path, self.device, self.dtype, self._make_room, on_card.append)
        self.files.require_unchanged(found)
        for one in on_card:
            self._held[weights], self._unkept[key] = one, ref(one)
        return weights

    def _vae(self, found: Found) -> AutoencoderKL:
        return checkpoints.load_vae(found.path, self.device, self.dtype, self._make_room)

    def _decoder(self, found: Found) -> nn.Module:
        with self._busy(f"decoder {found.sha256}", READS_DECODER, found):
            decoder = checkpoints.load_decoder(found.path, self.device, self.dtype)
        self.files.loaded(found)
        return decoder

    def _keeping(self) -> Generator[None, None, None]:
        """Have the host keep what came from files and is still on the card, in steps."""
        for key, held in tuple(self._unkept.items()):
            try:
                yield from self.cache.keep(key, held)
            except (MemoryError, RuntimeError) as error:
                log.info("checkpoint not kept", sha256=key[0], reason=str(error))
            del self._unkept[key]

    def _prefetched(self, key: Key) -> Generator[None, None, None]:
        """Prefetch in steps. What fails is found out again, and told, when it is wanted."""
        started = time.monotonic()
        try:
            found = self.files.find(key[0])
            with self._busy(f"prefetch {found.sha256}", "prefetch", found):
                yield from checkpoints.prefetch(found.path, self.device, self.dtype, self.cache, key)
                self.files.require_unchanged(found)
        except (RenderError, Unavailable, MemoryError, RuntimeError) as error:
            self.cache.forget(key)
            log.info("checkpoint not prefetched", sha256=key[0], reason=str(error))
        if key in self.cache:
            seconds = round(time.monotonic() - started, 3)
            log.info("checkpoint prefetched", name=found.name, sha256=key[0], seconds=seconds)
        else:
            self._put_off[key[0]] = time.monotonic() + _PAUSE_SECONDS

    def _make_room(self, needed: int) -> None:
        """Let what nobody uses leave first where the card has no room for both: small cards never hold both."""
        free = devices.free_bytes(self.device)
        if free is not None and free < needed:
            self.drop_unused(needed - free)

    @contextmanager
    def _busy(self, what: str, phase: str, found: Found) -> Iterator[None]:
        """Say what is being read; a load that waits for others hangs not, however long those take."""
        self.watchdog.busy(what, phase, limits.load_seconds(found.bytes), file=found.sha256)
        try:
            yield
        finally:
            self.watchdog.idle(what)

    # For people.

    def _phase(self, model: Model, found: Found) -> str:
        origin = self._origin(model, found)
        seconds = found.bytes / _BYTES_A_SECOND[origin]
        if model.kind == "checkpoint":  # what was measured is a checkpoint's, and the first brings the libraries
            seconds = self._seconds.get(origin) or seconds + (0 if self._seconds else _FIRST_LOAD_SECONDS)
        what = f"{_LABELS.get(model.kind, model.kind)} {found.name} {_WORDS[origin]}"
        return f"loading {what}, about {math.ceil(seconds)} s"

    def _origin(self, model: Model, found: Found) -> Origin:
        if model.kind == "checkpoint" and (model.sha256, self.dtype) in self.cache:
            return "host cache"
        return "page cache" if page_cache.holds(found.path) else "disk"


def _awaited(asked: Future[T], cancel: Cancellation) -> T:
    cancel.then(asked.cancel)
    try:
        return asked.result()
    except CancelledError:
        raise Cancelled("The image was cancelled while it waited for its checkpoint.") from None
    finally:
        del asked  # an error holds this frame, which with its future would be a cycle


def _bytes(loaded: Loaded) -> int:
    return loaded.bytes if isinstance(loaded, Weights) else sum(one.nbytes for one in loaded.state_dict().values())
