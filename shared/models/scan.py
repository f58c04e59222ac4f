"""A scan of the models folder: each file is hashed once and inspected once."""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Final, NamedTuple

import structlog

from shared.db.tables import ModelFile
from shared.models import regular_files
from shared.models.components import Component, Components, Place
from shared.models.folders import ModelFolders, ModelPath
from shared.models.hashing import hashed, parts_of
from shared.models.inspection import Inspection, Scanned, identity
from shared.models.kinds import KINDS, Kind

Inspect = Callable[[Path], Inspection]
Locate = Callable[[Path], Mapping[str, Place]]
"""Returns where the networks of a usable file lie in it, by their names; none if that is not known."""
log = structlog.get_logger()


class Fingerprint(NamedTuple):
    """Shows that a model file has changed, without reading it."""

    size: int
    mtime_ns: int  # of its youngest part
    parts: str  # digest of the name, size and time of each

    def is_that_of(self, seen: Scanned | ModelFile) -> bool:
        """Return whether `seen` was recorded of such a file; an earlier version recorded no parts."""
        return (seen.size, seen.mtime_ns) == self[:2] and seen.parts in (None, self.parts)


_NO_TIME: Final = -1  # of a file that the next scan looks into again, because none has this time
_MOST_FOLDERS: Final = 20_000  # a link to the root of a machine is not a place for models
INDEX: Final = "model_index.json"
_FOLDERS_OF_ONE_NETWORK: Final[Mapping[Kind, tuple[str, ...]]] = {
    "controlnet": ("diffusion_pytorch_model",),
    "image-encoder": ("model.", "model-0", "pytorch_model"),
}
"""The kinds that come as folders of one network, and how the names of its weights begin there."""
_KINDS_OF_FOLDERS: Final = {folder: kind for kind, facts in KINDS.items() for folder in facts.folders}


@contextmanager
def scan_lock(models: ModelFolders) -> Iterator[bool]:
    """Yield True to the one process of this machine that may scan `models` now, so that no file is hashed twice.

    Raises OSError if none of the folders can be opened.
    """
    with ExitStack() as opened:
        descriptors, errors = [], []
        for folder in sorted({*map(os.path.realpath, models.paths)}):  # in one order, each once: two scans never wait
            try:
                descriptors.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
                opened.callback(os.close, descriptors[-1])
            except OSError as error:
                errors.append(error)
        if not descriptors:
            raise errors[0]
        yield all(map(_lock, descriptors))


class Hashing:
    """Hashes files for some seconds, so that a scan of many files ends before the last one is hashed."""

    def __init__(self, seconds: float, on_left: Callable[[Path], object]) -> None:
        self._left_seconds = seconds
        self._on_left = on_left

    def hashed(self, path: Path, locate: Locate) -> tuple[str, Components] | None:
        """Return the hash of `path` and its networks; None if it is left to the next scan."""
        if self._left_seconds <= 0:
            self._on_left(path)
            return None
        started = time.monotonic()
        try:
            return hashed(path, locate(path))
        finally:
            self._left_seconds -= time.monotonic() - started


def scan(  # noqa: PLR0913 - what is known, and how to learn the rest
    models: ModelFolders,
    known: Iterable[Scanned],
    inspect: Inspect,
    *,
    locate: Locate = lambda _: {},
    hash_seconds: float = math.inf,
    on_left: Callable[[Path], object] = lambda _: None,
    on_empty: Callable[[Path], object] = lambda _: None,
) -> list[Scanned]:
    """Return the model files in `models`, by path.

    `known` are the files of earlier scans (`recording.remembered`, then the result of the last scan): a file of the
    same size and time keeps its hash and networks, and its inspection if this process made one. After `hash_seconds` of
    hashing no other file is hashed. A file that is not hashed yet, vanishes or changes during the scan is left to the
    next one: if it is known, it is returned as before, without an inspection. `on_left` is called with files that wait
    to be hashed, `on_empty` with each folder in which there is no file: its disk may be away.
    An unusable file is not hashed. If `inspect` raises TimeoutError or ChildProcessError for a file, the file keeps its
    row, or is returned as unusable, until it can be inspected. Raises OSError if none of the folders can be read.
    """
    before = {seen.path: seen for seen in known}
    hashing = Hashing(hash_seconds, on_left)
    found = []
    for file in sorted(model_files(models, on_empty), key=_written_at):
        try:
            seen = _look(file, before.get(file.name), inspect, locate, hashing)
        except OSError as error:
            log.info("model file skipped", path=file.name, reason=error.strerror)
            continue
        if seen is None and file.name in before:
            seen = replace(before[file.name], inspection=None)
        if seen:
            found.append(seen)
    return sorted(found, key=lambda seen: seen.path)


def _written_at(file: ModelPath) -> int:
    """The order of hashing: a file that is still being copied comes last, so that it does not delay others."""
    try:
        return file.path.stat().st_mtime_ns
    except OSError:
        return 0


def _look(
    file: ModelPath, before: Scanned | None, inspect: Inspect, locate: Locate, hashing: Hashing
) -> Scanned | None:
    """Return what `file` is now; None if it changed meanwhile, or is still to be hashed."""
    path = file.path
    try:
        now = fingerprint(path)
    except regular_files.NotRegular as error:
        return _irregular(file, error)
    is_same = before is not None and now.is_that_of(before)
    if is_same and before and before.inspection:
        return before
    try:
        inspection = placed(inspect(path), file.place)
    except (TimeoutError, ChildProcessError) as error:
        return _unread(file, before, error, is_same=is_same)
    weights = (before.weights or before.sha256) if is_same and before else None
    components = before.components if is_same and before else None
    if weights is None and inspection.reason is None:
        found = hashing.hashed(path, locate)
        if found is None:
            return None
        weights, components = found
    elif weights and components is None and inspection.reason is None:  # hashed by an earlier version
        components = {network: Component(None, place.stored) for network, place in locate(path).items()}
    if fingerprint(path) != now:
        return None
    digest = identity(weights, inspection.description) if weights else None
    stem = path.name if path.is_dir() else path.stem
    return Scanned(file.name, stem, now.size, now.mtime_ns, digest, inspection, weights, now.parts, components)


def _unread(file: ModelPath, before: Scanned | None, error: OSError, *, is_same: bool) -> Scanned:
    """Return a file that `inspect` could not read now: it stays as it is known, and is tried again.

    If it has changed and crashes its readers, it is not the known file any more. A slow disk proves nothing.
    """
    log.warning("model file not looked into", path=file.name, reason=str(error))
    if before and (is_same or isinstance(error, TimeoutError)):
        return replace(before, inspection=None)
    again = f"{error}; it is tried again, or replace the file"
    inspection = placed(Inspection("checkpoint", reason=again), file.place)
    stem = file.path.name if file.path.is_dir() else file.path.stem
    return Scanned(file.name, stem, 0, _NO_TIME, None, inspection)


def _irregular(file: ModelPath, error: regular_files.NotRegular) -> Scanned:
    """Return a pipe, a socket or a device as an unusable file; it is never opened."""
    what = "" if error.filename == str(file.path) else f"{Path(error.filename).name} beside it "
    inspection = placed(Inspection("checkpoint", reason=f"{what}{error.strerror}"), file.place)
    return Scanned(file.name, file.path.stem, 0, 0, None, inspection)


def placed(inspection: Inspection, place: str) -> Inspection:
    """Return an inspection with the kind that the file's folder and name ask for, or the reason why it is not one.

    For `place` see `ModelPath`. A file that cannot be read is taken for one of the kind that its folder or
    its name's ending is of; by itself it is a broken checkpoint.
    """
    meant = _meant_by(place)
    if meant and KINDS[meant].owns_folders and meant != inspection.kind:
        what, wanted = KINDS[inspection.kind].description, KINDS[meant].description
        return Inspection(meant, reason=inspection.reason or f"is {what}, where {wanted} should lie")
    if inspection.kind != "checkpoint" or inspection.reason is None:
        return inspection
    is_other = PurePath(place.casefold()).suffix in KINDS["other"].suffixes
    return replace(inspection, kind=meant or ("other" if is_other else "checkpoint"))


def _meant_by(place: str) -> Kind | None:
    """Return the kind that the innermost folder of a kind, or a name such as `name.vae.pt`, asks for; None: any."""
    *folders, file = place.casefold().split("/")
    asked = (_KINDS_OF_FOLDERS[folder] for folder in reversed(folders) if folder in _KINDS_OF_FOLDERS)
    return next(asked, "vae" if Path(file).stem.endswith(".vae") else None)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a file system without locks: several processes may scan at a time, which only costs time
        log.debug("models folder cannot be locked", reason=error.strerror)
    return True


def model_files(models: ModelFolders, on_empty: Callable[[Path], object] = lambda _: None) -> Iterator[ModelPath]:
    """Yield the files and diffusers folders in `models` that look like model files, in no order.

    `on_empty` is called with each folder in which there is none, or which cannot be read. Raises OSError if none of
    them can be read.
    """
    visited, earlier, errors = set[str](), set[str](), list[OSError]()
    for folder in models.paths:
        stems = set[str]()
        for path in _walked(folder, visited, errors.append):
            name = path.relative_to(folder).as_posix()
            stem = name.removesuffix(path.suffix).removesuffix(".vae")  # a checkpoint's own VAE is called as that is
            stems.add(stem)
            in_catalogue = str(path) if stem in earlier else name
            yield ModelPath(path, in_catalogue, path.relative_to(folder.parent).as_posix())
        earlier |= stems
        if not stems:
            on_empty(folder)
    if len(errors) == len(models.paths):
        raise errors[0]
    for error in errors:
        log.warning("models folder not scanned", folder=error.filename, reason=error.strerror)


def _walked(models: Path, visited: set[str], on_unread: Callable[[OSError], object]) -> Iterator[Path]:
    """Yield what looks like a model file in one folder, unless its folder was `visited`, which is added to."""

    def on_error(error: OSError) -> None:
        if error.filename == str(models):
            on_unread(error)

    for root, folders, files in os.walk(models, followlinks=True, onerror=on_error):
        folder = Path(root)
        real = os.path.realpath(root)
        is_model = folder != models and (INDEX in files or _is_of_one_network(folder, files, models))
        if real in visited or is_model:
            folders.clear()  # a loop of links, or parts of one checkpoint
        if real in visited:
            continue
        if len(visited) >= _MOST_FOLDERS:
            log.warning("models folder has too many folders: the others are not scanned", folder=root)
            return
        visited.add(real)
        folders[:] = sorted(name for name in folders if _is_visible(name))
        if is_model:
            yield folder
        else:
            yield from (folder / name for name in files if _is_visible(name) and _has_suffix(folder / name, models))


def _is_of_one_network(folder: Path, files: Collection[str], models: Path) -> bool:
    """True for a folder that holds a network alone, with its configuration, as ControlNets and image encoders come.

    A configuration beside the files of a kind, in the folder where all of these lie, makes it none.
    """
    meant = _meant_by(f"{folder.relative_to(models.parent).as_posix()}/")
    starts = _FOLDERS_OF_ONE_NETWORK.get(meant or "other", ())
    if "config.json" not in files or not any(name.startswith(starts) for name in files):
        return False
    is_shared = folder.name.casefold() in _KINDS_OF_FOLDERS
    return not is_shared or all(name.startswith(starts) for name in files if _has_suffix(folder / name, models))


def _has_suffix(path: Path, models: Path) -> bool:
    """True if model files of the kind that should lie there, or checkpoints, end like this."""
    kind = _meant_by(path.relative_to(models.parent).as_posix()) or "other"
    others = () if KINDS[kind].owns_folders else KINDS["other"].suffixes
    return path.suffix.lower() in KINDS["checkpoint"].suffixes + KINDS[kind].suffixes + others


def _is_visible(name: str) -> bool:
    """True unless hidden, or named in bytes that are not text: the catalogue could not hold it."""
    return not name.startswith(".") and name.isprintable()


def fingerprint(path: Path) -> Fingerprint:
    """Return size and times of all that belongs to a checkpoint; a `.yaml` that comes later changes them."""
    parts = parts_of(path) if path.is_dir() else [path, *filter(Path.exists, [path.with_suffix(".yaml")])]
    found = [(part, regular_files.status(part)) for part in parts]
    lines = [f"{part.relative_to(path.parent)} {one.st_size} {one.st_mtime_ns}" for part, one in found]
    digest = hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
    youngest = max((one.st_mtime_ns for _, one in found), default=0)
    return Fingerprint(sum(one.st_size for _, one in found), youngest, digest)
