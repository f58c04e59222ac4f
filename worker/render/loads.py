"""Loads of model files: one at a time, on the loader's thread, with a phase for people and a watchdog's limit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

import structlog
import torch
from structlog.contextvars import bound_contextvars
from torch import nn

from shared.errors import Cancelled, ModelFileError, RenderError, Unavailable
from shared.models.kinds import KINDS, Kind
from worker.engine import devices
from worker.engine.adapters.ip_adapters import IPAdapter
from worker.engine.adapters.merging import merged
from worker.engine.adapters.reading.fitting import fitted, networks_of
from worker.engine.adapters.reading.load import Deltas, load_deltas
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loading import load as checkpoints
from worker.engine.loading.converted import Converted
from worker.engine.loading.host_cache import HostCache, Key
from worker.engine.loading.loader import Loader
from worker.engine.loading.sharing import Sharing
from worker.engine.loop import limits
from worker.in_flight import Cancellation
from worker.render import page_cache
from worker.render.file_loads import FILE_LOADS, Sized, Source
from worker.render.local_models import Found, LocalModels
from worker.render.memory_meter import MemoryMeter
from worker.render.model_cache import Model
from worker.render.residency import Residency
from worker.render.shared_networks import SharedNetworks
from worker.supervisor.watchdog import READS_DECODER, Watchdog

if TYPE_CHECKING:
    from worker.render.file_loads import Loaded

log = structlog.get_logger(__name__)

T = TypeVar("T")
Origin = Literal["disk", "page cache", "host cache"]
"""The place of a file before its load, the slowest first."""

# The estimates until a load was measured: the import of the libraries, and the rates of usual hardware.
_FIRST_LOAD_SECONDS: Final = 5.0
_BYTES_A_SECOND: Final[dict[Origin, float]] = {"disk": 500e6, "page cache": 1.5e9, "host cache": 10e9}
_WORDS: Final[dict[Origin, str]] = {"disk": "from disk", "page cache": "from memory", "host cache": "from memory"}
_MERGE_SECONDS: Final = 5.0
_USUAL_BYTES: Final = 2  # of a number in the files of adapters
_PAUSE_SECONDS: Final = 60.0  # until a prefetch that failed is tried again


@dataclass
class Loads:
    """Loads model files onto a card, and keeps checkpoints for it in the host's memory."""

    device: Device
    dtype: torch.dtype
    files: LocalModels
    meter: MemoryMeter
    residency: Residency
    watchdog: Watchdog
    cache: HostCache
    on_change: Callable[[], object]
    drop_unused: Callable[
        [float], object
    ]  # called on the loader's thread with the bytes that the card lacks for a load

    load_seconds: float | None = None  # of the latest checkpoint that was read from its file
    _loader: Loader = field(init=False)
    _phases: dict[str, str] = field(default_factory=dict)  # SHA-256 -> phase, in the order of the loads
    # Measured: of the latest checkpoint from each place, and of the latest merge.
    _seconds: dict[Origin | Literal["merge"], float] = field(default_factory=dict)
    _weights: WeakValueDictionary[Model, Weights] = field(default_factory=WeakValueDictionary)  # bases of other loads
    _shared: SharedNetworks = field(default_factory=SharedNetworks)
    # Converted checkpoints live as long as their weights on the card; the host has yet to keep those in `_unkept`.
    _held: WeakKeyDictionary[Weights, Converted] = field(default_factory=WeakKeyDictionary)
    _unkept: dict[Key, ref[Converted]] = field(default_factory=dict)
    _put_off: dict[str, float] = field(default_factory=dict)  # SHA-256 -> monotonic time of the next try to prefetch it

    def __post_init__(self) -> None:
        self._loader = Loader(self.device)
        self._loader.start()

    def stop(self) -> None:
        """Stop after the present load."""
        self._loader.stop()

    @property
    def keeps_some(self) -> bool:
        """Whether the host keeps checkpoints for this card."""
        return self.cache.most_bytes > 0

    def phase(self) -> str:
        """Return the load that goes on, for people; "" if there is none."""
        return next(iter(tuple(self._phases.values())), "")

    def weigh(self, model: Model) -> None:
        """Estimate what `model` will take, unless it was measured. Raises RenderError if it cannot be loaded here."""
        found = self._found(model)
        if not self.residency.networks(model):
            self.residency.weigh(model, self._estimated(model, found))

    def weigh_again(self, loaded: Mapping[Model, Loaded]) -> None:
        """Record what models take by now that remember more with each image."""
        for model, one in loaded.items():
            if isinstance(one, IPAdapter):
                self.residency.weigh(model, {model.sha256: one.bytes})

    def shared_with(self, models: Iterable[Model]) -> list[nn.Module]:
        """Return the networks on the card that loads of `models` may take over."""
        return [network for model in models for network in self._shared.counted_as(self.residency.networks(model))]

    def load(self, model: Model, cancel: Cancellation) -> Loaded:
        """Return `model`, loaded while images go on; its base is loaded already. Raises RenderError, and Cancelled if
        `cancel` is set before that begins.
        """
        found = self._found(model)
        self._phases[model.sha256] = self._phase(model, found)
        self.on_change()
        load: Callable[[], Loaded] = partial(self._merged if model.merges else self._loaded, model, found)
        try:
            loaded = _result(self._ask(load), cancel)
            for one in found:
                self.files.forget_crashes(one)
        finally:
            del self._phases[model.sha256]
        return loaded

    def ask_decoder(self, found: Found) -> Future[nn.Module]:
        """Return the future of a tiny decoder, loaded while images go on. Raises RenderError."""
        return self._ask(partial(self._decoder, found))

    def phase_of(self, model: Model) -> str:
        """Return the phase of a load of `model`, for people. Raises RenderError."""
        return self._phase(model, self._found(model))

    def prefetch(self, sha256: str) -> None:
        """Read a checkpoint into the host's memory ahead of its load, if there is time. Returns at once."""
        key = (sha256, self.dtype)
        is_late = sha256 in self._phases or key in self.cache
        is_put_off = time.monotonic() < self._put_off.get(sha256, 0.0)
        if self.keeps_some and not (is_late or is_put_off or self._loader.has_spare):
            self._loader.add_spare(self._prefetched(key))

    def _found(self, model: Model) -> list[Found]:
        kind = "lora" if model.kind == "merged" else model.kind
        return [self.files.find(sha256, kind) for sha256 in model.files]

    def _ask(self, load: Callable[[], T]) -> Future[T]:
        return self._loader.ask(partial(self._then_keep, load))

    # On the loader's thread.

    def _then_keep(self, load: Callable[[], T]) -> T:
        """Return what `load` returns; it interrupted the host's copies, which go on after it."""
        try:
            return load()
        finally:
            if self._unkept:
                self._loader.add_spare(self._keeping())

    def _loaded(self, model: Model, files: Sequence[Found]) -> Loaded:
        (found,) = files
        origin, started, sizes = self._origin(model, found), time.monotonic(), dict[str, int]()
        check = partial(self.files.require_unchanged, found)
        sharing = self._shared.sharing(found.components, sizes, model.sha256, check)
        busy = self._busy(model.sha256, "load", found.bytes, found.sha256)
        with busy, self.meter.other(), bound_contextvars(name=found.name):
            loaded = self._read(model, found, sharing)
            if not sizes:
                check()
                sizes[model.sha256] = cast("Sized", loaded).bytes
        seconds = time.monotonic() - started
        self.residency.weigh(model, sizes)
        if model.kind == "checkpoint":
            self._seconds[origin] = seconds
            self.load_seconds = self.load_seconds if origin == "host cache" else seconds
        known = {"kind": model.kind, "name": found.name, "sha256": model.sha256}
        taken = {"bytes": sum(sizes.values()), "shared": sorted(sharing.residents)}
        log.info("model loaded", origin=origin, **known, **taken, seconds=round(seconds, 3))
        return loaded

    def _read(self, model: Model, found: Found, sharing: Sharing) -> Loaded:
        kind = cast("Kind", model.kind)  # only merged sets, which have no file, are of another
        if kind == "checkpoint":
            self._weights[model] = weights = self._checkpoint(found, sharing)
            return weights
        base = partial(self._base, model)
        source = Source(found, self.device, self.dtype, self._make_room, sharing, base)
        return _explained(f"the {KINDS[kind].label} {found.name}", partial(FILE_LOADS[kind], source))

    def _base(self, model: Model) -> Weights:
        """Return the checkpoint that the load of `model` needs: the image that wants it holds that."""
        if model.base is None:
            raise RenderError(f"{model.kind} {model.sha256[:10]} is loaded for no checkpoint")
        return self._weights[model.base]

    def _merged(self, model: Model, files: Sequence[Found]) -> Weights:
        """Return the base of `model` with the adapters in `files` merged into it."""
        started, found = time.monotonic(), {one.sha256: one for one in files}
        names, parts = _names(files), list[tuple[Deltas, float, float]]()
        with self.meter.other(), bound_contextvars(name=names):
            for merge in model.merges:
                deltas = self._deltas(found[merge.sha256], self._base(model))
                parts.append((deltas, merge.text_encoder, merge.unet))
            size = sum(one.bytes for one in files) + self.residency.bytes_of([model])
            with self._busy(model.sha256, "merge", size):
                weights = _explained(f"the LoRA {names}", partial(merged, self._base(model), parts, self._make_room))
        self._weights[model] = weights
        vae = {} if weights.vae is None else {"vae": weights.vae}
        sizes = self._shared.sizes(networks_of(weights) | vae, model.sha256)
        self.residency.weigh(model, sizes)
        self._seconds["merge"] = seconds = time.monotonic() - started
        own = sum(size for name, size in sizes.items() if name.startswith(model.sha256))
        about = {"names": names, "checkpoint": model.checkpoint, "digest": model.sha256, "bytes": own}
        log.info("adapters merged", **about, seconds=round(seconds, 3))
        return weights

    def _deltas(self, found: Found, base: Weights) -> Deltas:
        """Return what a file adds to a checkpoint. Raises ModelFileError, which names the file, if it does not fit."""
        what = f"the LoRA {found.name}"
        with self._busy(found.sha256, "load", found.bytes, found.sha256):
            deltas = _explained(what, partial(load_deltas, found.path, found.sha256))
            _explained(what, partial(fitted, deltas.file, networks_of(base)))
            self.files.require_unchanged(found)
        return deltas

    def _checkpoint(self, found: Found, sharing: Sharing) -> Weights:
        key = (found.sha256, self.dtype)
        if kept := self.cache.get(key):
            return checkpoints.load_cached(found.path, kept, self.device, self._make_room, sharing)
        on_card: list[Converted] = []
        weights = checkpoints.load(found.path, self.device, self.dtype, self._make_room, on_card.append, sharing)
        for one in on_card:
            self._held[weights], self._unkept[key] = one, ref(one)
        return weights

    def _decoder(self, found: Found) -> nn.Module:
        with self._busy(f"decoder {found.sha256}", READS_DECODER, found.bytes, found.sha256):
            decoder = checkpoints.load_decoder(found.path, self.device, self.dtype)
        self.files.require_unchanged(found)
        self.files.forget_crashes(found)
        return decoder

    def _keeping(self) -> Generator[None, None, None]:
        """Copy checkpoints that were read from files and are still on the card into the host's memory, in steps."""
        for key, held in tuple(self._unkept.items()):
            try:
                yield from self.cache.keep(key, held)
            except (MemoryError, RuntimeError) as error:
                log.info("checkpoint not kept", sha256=key[0], reason=str(error))
            del self._unkept[key]

    def _prefetched(self, key: Key) -> Generator[None, None, None]:
        """Prefetch in steps. A failure is only logged: the load itself will report it."""
        started = time.monotonic()
        try:
            found = self.files.find(key[0])
            with self._busy(f"prefetch {found.sha256}", "prefetch", found.bytes, found.sha256):
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
        """Drop unused models first if the card has no room for both: small cards never hold both."""
        free = devices.free_bytes(self.device)
        if free is not None and free < needed:
            self.drop_unused(needed - free)

    @contextmanager
    def _busy(self, name: str, phase: str, size_bytes: int, file: str = "") -> Iterator[None]:
        """Report the read of a file, or a merge, to the watchdog.

        A load that waits for others is not reported, so it cannot seem to hang.
        """
        self.watchdog.busy(name, phase, limits.load_seconds(size_bytes), file=file)
        try:
            yield
        finally:
            self.watchdog.idle(name)

    def _estimated(self, model: Model, files: Sequence[Found]) -> Mapping[str, int]:
        """Return the bytes of a model's networks in the formats of this card, by what a scan found in its file."""
        if model.merges and model.base:
            return {model.sha256: self.residency.bytes_of([model.base])}
        (found,) = files
        formats = {"vae": devices.decoder_dtype(self.device, self.dtype)}
        networks = {
            one.digest or f"{found.sha256} {name}": one.numbers * formats.get(name, self.dtype).itemsize
            for name, one in found.components.items()
        }
        larger = self.dtype.itemsize / _USUAL_BYTES if model.base else 1
        return networks or {found.sha256: int(found.bytes * larger)}

    # For people.

    def _phase(self, model: Model, files: Sequence[Found]) -> str:
        if model.merges:
            seconds = self._seconds.get("merge", _MERGE_SECONDS)
            return f"merging {_names(files)} into the checkpoint, about {math.ceil(seconds)} s"
        (found,) = files
        kind, origin = cast("Kind", model.kind), self._origin(model, found)
        seconds = found.bytes / _BYTES_A_SECOND[origin]
        if kind == "checkpoint":  # only checkpoints are measured; the first one also imports the libraries
            seconds = self._seconds.get(origin) or seconds + (0 if self._seconds else _FIRST_LOAD_SECONDS)
        what = f"{KINDS[kind].label} {found.name} {_WORDS[origin]}"
        return f"loading {what}, about {math.ceil(seconds)} s"

    def _origin(self, model: Model, found: Found) -> Origin:
        if model.kind == "checkpoint" and (model.sha256, self.dtype) in self.cache:
            return "host cache"
        return "page cache" if page_cache.holds(found.path) else "disk"


def _result(load: Future[T], cancel: Cancellation) -> T:
    cancel.then(load.cancel)
    try:
        return load.result()
    except CancelledError:
        raise Cancelled("The image was cancelled while it waited for its checkpoint.") from None
    except RenderError as error:
        raise error.with_traceback(None) from error.__cause__  # the frames of the load hold models
    finally:
        del load  # an error holds this frame, which would be a cycle if it held the future


def _explained(what: str, load: Callable[[], T]) -> T:
    """Return the result of the load of `what`, which an error of its file names."""
    try:
        return checkpoints.explained(what, load)
    except ModelFileError as error:
        if type(error) is not ModelFileError:  # a file that has changed is named already
            raise
        reason = str(error)
    raise ModelFileError(f"{what} {reason}")


def _names(files: Iterable[Found]) -> str:
    return " and ".join(one.name for one in files)
