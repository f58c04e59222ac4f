"""A scan of the models folder: what lies there, each file hashed once and looked into once."""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from shared.catalogue import DECODER_SUFFIXES, VAE_SUFFIXES, Inspection, Kind, Scanned

Inspect = Callable[[Path], Inspection]
log = structlog.get_logger()

_FILES: Final = frozenset({".safetensors", ".ckpt"})
_VAE_FOLDER: Final = "vae"  # in any case
_DECODER_FOLDERS: Final = frozenset({"vae-approx", "vae_approx", "vae-taesd"})  # in any case
_SUFFIXES: Final[dict[Kind, tuple[str, ...]]] = {"vae": VAE_SUFFIXES, "decoder": DECODER_SUFFIXES}
_SHOULD: Final[dict[Kind, str]] = {"vae": "a VAE alone", "decoder": "a tiny decoder"}
_WHAT: Final[dict[Kind, str]] = {"checkpoint": "a whole checkpoint", "vae": "a VAE", "decoder": "a tiny decoder"}
_PARTS: Final = frozenset({".safetensors", ".bin", ".json", ".txt"})  # of a diffusers folder
_INDEX: Final = "model_index.json"


@contextmanager
def sole(models: Path) -> Iterator[bool]:
    """Yield True to the one process of this machine that may scan `models` now: nobody hashes what another hashes."""
    descriptor = os.open(models, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def scan(models: Path, known: Iterable[Scanned], inspect: Inspect, *, hash_seconds: float = math.inf) -> list[Scanned]:
    """Return what lies in `models` now, by path.

    `known` is what earlier scans found (`catalogue.remembered`, then what the last scan returned): a file of the same
    size and time keeps its hash, and where this process looked into it, its inspection. After `hash_seconds` no other
    file is hashed. What is not hashed yet, vanishes or changes under the scan is left to the next one: a file that is
    known is returned as before, without an inspection. An unusable file is not hashed. Raises OSError if the folder
    itself cannot be read.
    """
    before = {seen.path: seen for seen in known}
    deadline = time.monotonic() + hash_seconds
    found = []
    for path in model_files(models):
        name = path.relative_to(models).as_posix()
        try:
            seen = _look(path, name, before.get(name), inspect, may_hash=time.monotonic() < deadline)
        except OSError as error:
            log.info("model file skipped", path=name, reason=error.strerror)
            continue
        if seen is None and name in before:
            seen = replace(before[name], inspection=None)
        if seen:
            found.append(seen)
    return sorted(found, key=lambda seen: seen.path)


def _look(path: Path, name: str, before: Scanned | None, inspect: Inspect, *, may_hash: bool) -> Scanned | None:
    """Return what `path` is now; None if it changed meanwhile, or is still to be hashed."""
    size, mtime_ns = fingerprint(path)
    is_same = before is not None and (before.size, before.mtime_ns) == (size, mtime_ns)
    if is_same and before and before.inspection:
        return before
    inspection = _placed(inspect(path), name)
    digest = before.sha256 if is_same and before else None
    if digest is None and inspection.reason is None:
        if not may_hash:
            return None
        digest = sha256(path)
    if fingerprint(path) != (size, mtime_ns):
        return None
    return Scanned(name, path.name if path.is_dir() else path.stem, size, mtime_ns, digest, inspection)


def _placed(inspection: Inspection, name: str) -> Inspection:
    """Return what was found where one kind should lie as what people laid there: one of these, or why it is none."""
    kind = _meant_by(name)
    if kind is None or kind == inspection.kind:
        return inspection
    reason = inspection.reason or f"is {_WHAT[inspection.kind]}, where {_SHOULD[kind]} should lie"
    return Inspection(kind, reason=reason)


def _meant_by(name: str) -> Kind | None:
    """Return what should lie there; `name` is relative to the models folder. None: anything.

    A VAE in a folder VAE, and as `name.vae.*` beside a checkpoint; a tiny decoder where people keep these.
    """
    *folders, file = name.casefold().split("/")
    if _DECODER_FOLDERS.intersection(folders):
        return "decoder"
    return "vae" if _VAE_FOLDER in folders or Path(file).stem.endswith(f".{_VAE_FOLDER}") else None


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a file system without locks: several may scan at a time, which only costs time
        log.debug("models folder cannot be locked", reason=error.strerror)
    return True


def model_files(models: Path) -> Iterator[Path]:
    """Yield the files and diffusers folders in `models` that look like checkpoints, VAEs or tiny decoders, in no order.

    Raises OSError if the folder itself cannot be read.
    """
    visited = set()
    for root, folders, files in os.walk(models, followlinks=True, onerror=_raise_if(models)):
        folder = Path(root)
        real = os.path.realpath(root)
        if real in visited or (_INDEX in files and folder != models):
            folders.clear()  # a loop of links, or parts of one checkpoint
        if real in visited:
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if _is_ours(name))
        if _INDEX in files and folder != models:
            yield folder
        else:
            yield from (folder / name for name in files if _is_ours(name) and _is_model(folder / name, models))


def _is_model(path: Path, models: Path) -> bool:
    """True by the suffix; `.pt` files are many things, and VAEs or tiny decoders where these lie."""
    suffix, kind = path.suffix.lower(), _meant_by(path.relative_to(models).as_posix())
    return suffix in _FILES or (kind is not None and suffix in _SUFFIXES[kind])


def _raise_if(models: Path) -> Callable[[OSError], None]:
    def on_error(error: OSError) -> None:
        if error.filename == str(models):
            raise error

    return on_error


def _is_ours(name: str) -> bool:
    """True unless hidden, or named in bytes that are no text: the catalogue could not hold it."""
    return not name.startswith(".") and name.isprintable()


def fingerprint(path: Path) -> tuple[int, int]:
    """Return size and time of all that belongs to a checkpoint; a `.yaml` that comes later changes it."""
    parts = _parts(path) if path.is_dir() else [path, *filter(Path.exists, [path.with_suffix(".yaml")])]
    found = [part.stat() for part in parts]
    return sum(one.st_size for one in found), max(one.st_mtime_ns for one in found)


def sha256(path: Path) -> str:
    """Return the hash of a file; of a diffusers folder, that of its parts' names and hashes in their order."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = [f"{sha256(part)}  {part.relative_to(path).as_posix()}\n" for part in _parts(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _parts(folder: Path) -> list[Path]:
    return sorted(part for part in folder.rglob("*") if part.suffix in _PARTS and part.is_file())
