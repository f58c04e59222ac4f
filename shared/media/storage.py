"""The storage of pictures: a folder or an S3 bucket. Objects are written whole and synced, and never overwritten.

Only this module knows paths. A key holds job, index and attempt, so that two workers never write the same key. A marker
names the farm that owns the storage, because a disk that is not mounted looks like an empty storage.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from urllib.parse import parse_qsl, urlsplit

import fsspec
from botocore.exceptions import BotoCoreError, ClientError

from shared.errors import NotFound, SettingsError, StorageAway, StorageError
from shared.media import synced_files
from shared.params.fields import FileFormat

Kind = Literal["picture", "thumbnail", "film", "strip", "noise", "latents", "guidance", "intermediates"]
_SUFFIX: Final = {
    "thumbnail": "webp",
    "film": "film.webp",
    "strip": "strip.webp",
    "noise": "noise.webp",
    "latents": "latents.webp",
    "guidance": "guidance.webp",
    "intermediates": "intermediates.json",
}
_PICTURE_SUFFIX: Final[dict[FileFormat, str]] = {"png": "png", "jpeg": "jpg", "webp": "picture.webp"}
_KEY: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_OF_ATTEMPT: Final = re.compile(r"\.?(\d{1,18})-(\d{1,18})-(\d{1,18})\.[a-z0-9.]+")  # a dot first: half-written
_OF_SHEET: Final = re.compile(r"\.?sheet-(\d{1,18})\.[a-z0-9.]+")
_LITTER: Final = re.compile(r"check-[0-9a-f]{32}|\..+\.tmp")
_JOBS_A_FOLDER: Final = 1000
_S3_OPTIONS: Final = frozenset({"endpoint_url", "region_name"})
_S3_PATIENCE: Final = {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 2}}
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_TOO_LARGE: Final = frozenset({errno.EFBIG, errno.EMSGSIZE})
_MARKER_SECONDS: Final = 60.0  # until the marker of a bucket is read again, since a bucket is never unmounted
_PLAIN: Final = {errno.EROFS: "it is read-only", errno.ENOENT: "its folder is not there"}
_CHECK_BYTES: Final = 8192  # a full disk still takes a file that fits beside its name

MARKER: Final = "stepfarm-id"
_MARKER_TEXT: Final = """{farm_id}
The farm of this id keeps its pictures here. Leave this file where it is: if it is missing, the farm assumes that
the right disk is not mounted, and stores nothing.
"""


def job_prefix(job_id: int) -> str:
    """Return the common prefix of the keys of a job."""
    return f"jobs/{job_id // _JOBS_A_FOLDER:03}/{job_id}"


def key(job_id: int, index: int, attempt: int, kind: Kind, form: FileFormat = "png") -> str:
    """Return the key of an object of one attempt; `form` is the format of the picture alone."""
    suffix = _PICTURE_SUFFIX[form] if kind == "picture" else _SUFFIX[kind]
    return f"{job_prefix(job_id)}/{job_id}-{index:04}-{attempt}.{suffix}"


@dataclass(frozen=True)
class StoredObject:
    """An object of one attempt at an image, whole or half-written."""

    job_id: int
    index: int
    attempt: int
    name: str


@dataclass(frozen=True)
class StoredSheet:
    """A contact sheet of a job, whole or half-written."""

    job_id: int
    end: int
    name: str


def sheet_key(job_id: int, end: int) -> str:
    """Return the key of the contact sheet that was made for one end of a job; `end` is the event's id."""
    return f"{job_prefix(job_id)}/sheet-{end}.png"


def upload_key(sha256: str) -> str:
    """Return the key of the uploaded picture whose bytes have this hash."""
    return f"uploads/{sha256[:2]}/{sha256}.png"


class Storage:
    """Objects by key under one URL: a folder's path, `file://…`, or `s3://bucket/prefix` with the usual AWS_*.

    `?endpoint_url=…&region_name=…` behind an S3 URL names another service than Amazon's. Safe for many threads; the
    connection is made at the first use, so after a fork.

    `guard` gets the id in the marker (None: there is no marker) before an object is written, deleted or reported
    missing, and raises StorageAway if that is another farm's. It makes a marker only before a write or a deletion.
    Without a guard every storage is accepted.
    """

    def __init__(self, url: str, guard: Guard | None = None) -> None:
        self.url = url
        parts = urlsplit(url)
        if parts.scheme not in {"", "file", "s3"}:
            raise SettingsError(f"FARM_STORAGE_URL={url!r}: must be a folder or s3://bucket/prefix.")
        self._guard = guard
        self._guarded_until = 0.0  # monotonic
        self._folder = None if parts.scheme == "s3" else Path(url.removeprefix("file://")).absolute()
        self._root = str(self._folder or f"{parts.netloc}{parts.path}".rstrip("/"))
        self._options = dict(parse_qsl(parts.query)) if parts.scheme == "s3" else {}
        if unknown := self._options.keys() - _S3_OPTIONS:
            raise SettingsError(f"FARM_STORAGE_URL: {sorted(unknown)} is unknown; S3 takes {sorted(_S3_OPTIONS)}.")

    @property
    def is_bucket(self) -> bool:
        """True for a bucket, where each request costs money."""
        return self._folder is None

    def put(self, key: str, data: bytes) -> None:
        """Store `data` under `key`, whole and durable when this returns; storing the same again does nothing.

        Raises StorageAway while the storage takes nothing, StorageError if the key has other data already. Nothing
        half-written stays.
        """
        path = self._path(key)
        with _reported(f"storing {key}"):
            if self._folder:
                with self._held(self._folder) as root:
                    if _is_free(key, synced_files.read(root, key), data):
                        synced_files.write(root, key, data)
            else:
                self._look_at_marker()
                there = self._files.cat_file(path) if self._files.exists(path) else None
                if _is_free(key, there, data):
                    self._files.pipe_file(path, data)  # one PUT: S3 shows it whole or not at all

    def get(self, key: str) -> bytes:
        """Return the object under `key`. Raises NotFound, or StorageAway."""
        with _reported(f"reading {key}"):
            try:
                return bytes(self._files.cat_file(self._path(key)))
            except (FileNotFoundError, IsADirectoryError):
                self._look_at_marker(marks=False)  # in the wrong storage everything is missing
                raise NotFound(f"There is no stored object {key}.") from None

    def exists(self, key: str) -> bool:
        """True if there is an object under `key`. Raises StorageAway."""
        with _reported(f"looking for {key}"):
            is_there = bool(self._files.isfile(self._path(key)))
            if not is_there:
                self._look_at_marker(marks=False)
            return is_there

    def size(self, key: str) -> int | None:
        """Return the size in bytes of the object under `key` in any farm's storage; None if there is none.

        Raises StorageAway.
        """
        with _reported(f"looking for {key}"):
            try:
                return int(self._files.info(self._path(key))["size"])
            except FileNotFoundError:
                return None

    def delete(self, prefix: str) -> None:
        """Delete the object `prefix` and all objects `prefix/…`, if there are any. Raises StorageAway."""
        path = self._path(prefix)
        with _reported(f"deleting {prefix}"):
            self._look_at_marker()
            try:
                self._files.rm(path, recursive=True)
            except FileNotFoundError:
                return

    def marker(self) -> str | None:
        """Return the id of the farm that owns the storage; None without a marker. Raises StorageAway."""
        with _reported(f"reading {MARKER}"):
            return self._marker()

    def mark(self, farm_id: str) -> None:
        """Make this the storage of the farm of this id, also if it was another farm's. Raises StorageAway."""
        data = _MARKER_TEXT.format(farm_id=farm_id).encode()
        with _reported(f"storing {MARKER}"):
            if self._folder:
                synced_files.make_root(self._folder)
                with synced_files.held(self._folder) as root:
                    synced_files.write(root, MARKER, data)
            else:
                self._files.pipe_file(self._path(MARKER), data)

    def is_empty(self) -> bool:
        """True if neither jobs nor uploads have objects here. Raises StorageAway."""
        return not self._names("jobs") and not self._names("uploads")

    def last_job(self) -> int:
        """Return the greatest id of a job that has objects here; 0 if none has. Raises StorageAway."""
        shelves = sorted((int(name) for name in self._names("jobs") if name.isdecimal()), reverse=True)
        for shelf in shelves:
            ids = [int(name) for name in self._names(f"jobs/{shelf:03}") if name.isdecimal()]
            if ids:
                return max(ids)
        return 0

    def last_attempt(self, job_id: int, index: int) -> int:
        """Return the latest attempt at an image that has objects here; 0 if none has. Raises StorageAway."""
        return max((one.attempt for one in self.attempts_of(job_id) if one.index == index), default=0)

    def jobs(self) -> Iterator[list[int]]:
        """Yield the ids of the jobs that have objects here, some at a time. Raises StorageError."""
        for shelf in self._names("jobs"):
            yield [int(name) for name in self._names(f"jobs/{shelf}") if name.isdecimal()]

    def objects(self) -> Iterator[list[StoredObject]]:
        """Yield the objects of attempts, those of some jobs at a time. Raises StorageError."""
        for shelf in self._names("jobs"):
            yield [found for name in self._below(f"jobs/{shelf}") if (found := _stored_object(name))]

    def sheets(self) -> Iterator[list[StoredSheet]]:
        """Yield the contact sheets, those of some jobs at a time. Raises StorageError."""
        for shelf in self._names("jobs"):
            yield [sheet for name in self._below(f"jobs/{shelf}") if (sheet := _stored_sheet(name))]

    def sheets_of(self, job_id: int) -> list[StoredSheet]:
        """Return the contact sheets of a job. Raises StorageError."""
        prefix = job_prefix(job_id)
        return [sheet for name in self._names(prefix) if (sheet := _stored_sheet(f"{prefix}/{name}"))]

    def attempts_of(self, job_id: int) -> list[StoredObject]:
        """Return the objects of all attempts at the images of a job. Raises StorageError."""
        prefix = job_prefix(job_id)
        return [found for name in self._names(prefix) if (found := _stored_object(f"{prefix}/{name}"))]

    def discard(self, stored: StoredObject | StoredSheet) -> None:
        """Delete an object of an attempt or a sheet, if it is still there. Raises StorageError."""
        with _reported(f"deleting {stored.name}"), suppress(FileNotFoundError):
            self._look_at_marker()
            self._files.rm_file(f"{self._root}/{stored.name}")

    def uploads(self) -> Iterator[list[str]]:
        """Yield the SHA-256 of the uploaded pictures, some at a time. Raises StorageError."""
        for shelf in self._names("uploads"):
            yield [name.removesuffix(".png") for name in self._names(f"uploads/{shelf}") if name.endswith(".png")]

    def check(self) -> None:
        """Raise StorageAway unless a small object can be stored and deleted now."""
        name = f"check-{uuid.uuid4().hex}"
        self.put(name, os.urandom(_CHECK_BYTES))  # bytes that a disk cannot compress
        self.delete(name)

    def tidy(self, seconds: float) -> int:
        """Delete the checks and half-written uploads of killed processes that are `seconds` old; return how many.

        Half-written objects of attempts are among `left`. Raises StorageError.
        """
        self._look_at_marker()
        tidied = 0
        for folder in ("", *(f"uploads/{shelf}" for shelf in self._names("uploads"))):
            for name in self._names(folder):
                if _LITTER.fullmatch(name):
                    tidied += self._tidy(f"{self._root}/{folder}/{name}" if folder else f"{self._root}/{name}", seconds)
        return tidied

    def _tidy(self, path: str, seconds: float) -> int:
        with _reported(f"deleting {path}"), suppress(FileNotFoundError):
            if (datetime.now(UTC) - self._files.modified(path)).total_seconds() >= seconds:
                self._files.rm_file(path)
                return 1
        return 0

    def free_bytes(self) -> int | None:
        """Return the free bytes of a folder's disk; None for a bucket, which has no limit. Raises StorageAway."""
        if self._folder is None:
            return None
        with _reported(f"looking at {self._folder}"):
            existing = next(folder for folder in (self._folder, *self._folder.parents) if folder.exists())
            return shutil.disk_usage(existing).free

    @contextmanager
    def _held(self, folder: Path) -> Iterator[int]:
        """Yield the descriptor of the storage's folder after the guard has accepted its marker."""
        if self._guard is None:
            synced_files.make_root(folder)
        elif self._marker() is None:
            self._guard(self, None, marks=True)
        with synced_files.held(folder) as root:
            if self._guard:
                self._guard(self, _named(synced_files.read(root, MARKER)), marks=True)
            yield root

    def _marker(self) -> str | None:
        try:
            return _named(self._files.cat_file(self._path(MARKER)))
        except FileNotFoundError:
            return None

    def _look_at_marker(self, *, marks: bool = True) -> None:
        """Raise StorageAway unless the farm owns the storage; with `marks` the guard may make the marker."""
        if self._guard is None or time.monotonic() < self._guarded_until:
            return
        marker = self._marker()
        self._guard(self, marker, marks=marks)
        if self.is_bucket and (marks or marker is not None):
            self._guarded_until = time.monotonic() + _MARKER_SECONDS

    def _below(self, prefix: str) -> list[str]:
        """Return the sorted names of all objects below `prefix`, each from the top."""
        with _reported(f"listing {prefix}"):
            return [name.removeprefix(f"{self._root}/") for name in sorted(self._files.find(self._path(prefix)))]

    def _names(self, prefix: str) -> list[str]:
        """Return the sorted names directly below `prefix`; with "" those at the top."""
        with _reported(f"listing {prefix}"):
            try:
                paths = self._files.ls(self._path(prefix) if prefix else self._root, detail=False)
            except FileNotFoundError:
                return []
            return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    @cached_property
    def _files(self) -> Any:  # noqa: ANN401 - fsspec has no types
        if self._folder:
            return fsspec.filesystem("file", skip_instance_cache=True)
        return fsspec.filesystem(
            "s3",
            client_kwargs=self._options,
            config_kwargs=_S3_PATIENCE,
            use_listings_cache=False,  # other processes write too
            skip_instance_cache=True,
        )

    def _path(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of the storage")
        return f"{self._root}/{key}"


class Guard(Protocol):
    """Knows which farm has to own the storage."""

    def __call__(self, storage: Storage, named: str | None, *, marks: bool) -> None:
        """Raise StorageAway unless `named`, the id in the marker, is right; make a missing marker if `marks`."""


def _is_free(key: str, there: bytes | None, data: bytes) -> bool:
    """Return whether `data` is still to be stored. Raises StorageError if `there`, stored already, is other data."""
    if there is not None and there != data:
        raise StorageError(f"storing {key}: there is another object of that name; nothing is overwritten")
    return there is None


def _named(marker: bytes | None) -> str | None:
    """Return the farm's id in a marker; a file of another program gives an id that no farm has."""
    return marker.decode("utf-8", "replace").partition("\n")[0].strip()[:100] if marker is not None else None


def _stored_object(name: str) -> StoredObject | None:
    """Return the attempt that an object belongs to; None for a name that no attempt uses."""
    folder, _, base = name.rpartition("/")
    parts = _OF_ATTEMPT.fullmatch(base)
    if not parts or folder != job_prefix(int(parts[1])):
        return None
    return StoredObject(int(parts[1]), int(parts[2]), int(parts[3]), name)


def _stored_sheet(name: str) -> StoredSheet | None:
    """Return the contact sheet of this name; None for any other object."""
    folder, _, base = name.rpartition("/")
    parts, job = _OF_SHEET.fullmatch(base), folder.rpartition("/")[2]
    if not parts or not job.isdecimal() or folder != job_prefix(int(job)):
        return None
    return StoredSheet(int(job), int(parts[1]), name)


@contextmanager
def _reported(what: str) -> Iterator[None]:
    """Raise StorageAway instead of the errors of a storage, and StorageError if one object alone is to blame."""
    try:
        yield
    except OSError as error:  # S3's answers too, as s3fs translates them
        if error.errno in _NO_ROOM:
            raise StorageAway(what, "the disk is full", advice="delete jobs or free space", is_certain=True) from error
        reason = error.strerror or str(error) or type(error).__name__
        cause = error.__cause__  # a refusal by a proxy has no code of S3's, only a status
        metadata = cause.response["ResponseMetadata"] if isinstance(cause, ClientError) else {}
        is_refused = metadata.get("HTTPStatusCode") == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        if error.errno in _TOO_LARGE or is_refused:
            raise StorageError(f"{what}: it is too large for the storage, or for a proxy before it") from error
        if error.errno == errno.ENAMETOOLONG:
            raise StorageError(f"{what}: {reason}") from error
        plain = _PLAIN.get(error.errno or 0)
        raise StorageAway(what, plain or reason, detail=reason, is_certain=error.errno == errno.EROFS) from error
    except (BotoCoreError, ClientError) as error:  # no answer, no credentials, or an object that arrives incomplete
        raise StorageAway(what, "the object store does not answer", detail=str(error)) from error
