"""A scan of the models folder: each file is hashed once and inspected once."""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Final, NamedTuple

import structlog

from shared.db.tables import ModelFile
from shared.models import regular_files
from shared.models.components import Component, Components, Place
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
_KINDS_OF_FOLDERS: Final = {folder: kind for kind, facts in KINDS.items() for folder in facts.folders}


@contextmanager
def scan_lock(models: Path) -> Iterator[bool]:
    """Yield True to the one process of this machine that may scan `models` now, so that no file is hashed twice."""
    descriptor = os.open(models, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


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
    models: Path,
    known: Iterable[Scanned],
    inspect: Inspect,
    *,
    locate: Locate = lambda _: {},
    hash_seconds: float = math.inf,
    on_left: Callable[[Path], object] = lambda _: None,
) -> list[Scanned]:
    """Return the model files in `models`, by path.

    `known` are the files of earlier scans (`recording.remembered`, then the result of the last scan): a file of the
    same size and time keeps its hash and networks, and its inspection if this process made one. After `hash_seconds` of
    hashing no other file is hashed. A file that is not hashed yet, vanishes or changes during the scan is left to the
    next one: if it is known, it is returned as before, without an inspection. `on_left` is called with files that wait
    to be hashed.
    An unusable file is not hashed. If `inspect` raises TimeoutError or ChildProcessError for a file, the file keeps its
    row, or is returned as unusable, until it can be inspected. Raises OSError if the folder cannot be read.
    """
    before = {seen.path: seen for seen in known}
    hashing = Hashing(hash_seconds, on_left)
    found = []
    for path in sorted(model_files(models), key=_written_at):
        name = path.relative_to(models).as_posix()
        try:
            seen = _look(path, name, before.get(name), inspect, locate, hashing)
        except OSError as error:
            log.info("model file skipped", path=name, reason=error.strerror)
            continue
        if seen is None and name in before:
            seen = replace(before[name], inspection=None)
        if seen:
            found.append(seen)
    return sorted(found, key=lambda seen: seen.path)


def _written_at(path: Path) -> int:
    """The order of hashing: a file that is still being copied comes last, so that it does not delay others."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _look(  # noqa: PLR0913, PLR0917 - what is known, and how to learn the rest
    path: Path, name: str, before: Scanned | None, inspect: Inspect, locate: Locate, hashing: Hashing
) -> Scanned | None:
    """Return what `path` is now; None if it changed meanwhile, or is still to be hashed."""
    try:
        now = fingerprint(path)
    except regular_files.NotRegular as error:
        return _irregular(path, name, error)
    is_same = before is not None and now.is_that_of(before)
    if is_same and before and before.inspection:
        return before
    try:
        inspection = placed(inspect(path), name)
    except (TimeoutError, ChildProcessError) as error:
        return _unread(path, name, before, error, is_same=is_same)
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
    return Scanned(name, stem, now.size, now.mtime_ns, digest, inspection, weights, now.parts, components)


def _unread(path: Path, name: str, before: Scanned | None, error: OSError, *, is_same: bool) -> Scanned:
    """Return a file that `inspect` could not read now: it stays as it is known, and is tried again.

    If it has changed and crashes its readers, it is not the known file any more. A slow disk proves nothing.
    """
    log.warning("model file not looked into", path=name, reason=str(error))
    if before and (is_same or isinstance(error, TimeoutError)):
        return replace(before, inspection=None)
    inspection = placed(Inspection("checkpoint", reason=f"{error}; it is tried again, or replace the file"), name)
    return Scanned(name, path.name if path.is_dir() else path.stem, 0, _NO_TIME, None, inspection)


def _irregular(path: Path, name: str, error: regular_files.NotRegular) -> Scanned:
    """Return a pipe, a socket or a device as an unusable file; it is never opened."""
    what = "" if error.filename == str(path) else f"{Path(error.filename).name} beside it "
    inspection = placed(Inspection("checkpoint", reason=f"{what}{error.strerror}"), name)
    return Scanned(name, path.stem, 0, 0, None, inspection)


def placed(inspection: Inspection, name: str) -> Inspection:
    """Return an inspection with the kind that the file's folder and name ask for, or the reason why it is not one.

    `name` is relative to the models folder. A file that cannot be read is taken for one of the kind that its folder or
    its name's ending is of; by itself it is a broken checkpoint.
    """
    meant = _meant_by(name)
    if meant and KINDS[meant].owns_folders and meant != inspection.kind:
        what, wanted = KINDS[inspection.kind].description, KINDS[meant].description
        return Inspection(meant, reason=inspection.reason or f"is {what}, where {wanted} should lie")
    if inspection.kind != "checkpoint" or inspection.reason is None:
        return inspection
    is_other = PurePath(name.casefold()).suffix in KINDS["other"].suffixes
    return replace(inspection, kind=meant or ("other" if is_other else "checkpoint"))


def _meant_by(name: str) -> Kind | None:
    """Return the kind that the innermost folder of a kind, or a name such as `name.vae.pt`, asks for; None: any.

    `name` is relative to the models folder.
    """
    *folders, file = name.casefold().split("/")
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


def model_files(models: Path) -> Iterator[Path]:
    """Yield the files and diffusers folders in `models` that look like model files, in no order.

    Raises OSError if the folder itself cannot be read.
    """
    visited: set[str] = set()
    for root, folders, files in os.walk(models, followlinks=True, onerror=_raise_if(models)):
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
    """True for a folder of diffusers that holds a network alone, with its configuration, as ControlNets come."""
    is_meant = _meant_by(f"{folder.relative_to(models).as_posix()}/") == "controlnet"
    return is_meant and "config.json" in files and any(name.startswith("diffusion_pytorch_model") for name in files)


def _has_suffix(path: Path, models: Path) -> bool:
    """True if model files of the kind that should lie there, or checkpoints, end like this."""
    kind = _meant_by(path.relative_to(models).as_posix()) or "other"
    others = () if KINDS[kind].owns_folders else KINDS["other"].suffixes
    return path.suffix.lower() in KINDS["checkpoint"].suffixes + KINDS[kind].suffixes + others


def _raise_if(models: Path) -> Callable[[OSError], None]:
    def on_error(error: OSError) -> None:
        if error.filename == str(models):
            raise error

    return on_error


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
