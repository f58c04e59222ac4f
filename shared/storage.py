"""Where pictures lie: a folder or an S3 bucket, each object written whole and synced, and never overwritten.

Only this module knows a path. A key holds job, index and attempt, so that two workers never write the same one.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import fsspec
from botocore.exceptions import BotoCoreError

from shared.errors import NotFound, SettingsError, StorageError
from shared.params import FileFormat

Kind = Literal["picture", "thumbnail", "film", "strip"]
_SUFFIX: Final = {"thumbnail": "webp", "film": "film.webp", "strip": "strip.webp"}
_PICTURE_SUFFIX: Final[dict[FileFormat, str]] = {"png": "png", "jpeg": "jpg", "webp": "picture.webp"}
_KEY: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_OF_ATTEMPT: Final = re.compile(r"\.?(\d{1,18})-(\d{1,18})-(\d{1,18})\.[a-z0-9.]+")  # a dot first: half-written
_LITTER: Final = re.compile(r"check-[0-9a-f]{32}|\..+\.tmp")
_JOBS_A_FOLDER: Final = 1000
_S3_OPTIONS: Final = frozenset({"endpoint_url", "region_name"})
_S3_PATIENCE: Final = {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 2}}


def job_prefix(job_id: int) -> str:
    """Return the key under which all objects of a job lie."""
    return f"jobs/{job_id // _JOBS_A_FOLDER:03}/{job_id}"


def key(job_id: int, index: int, attempt: int, kind: Kind, form: FileFormat = "png") -> str:
    """Return the key of what one attempt left; `form` is the format of the picture itself, all else is WebP."""
    suffix = _PICTURE_SUFFIX[form] if kind == "picture" else _SUFFIX[kind]
    return f"{job_prefix(job_id)}/{job_id}-{index:04}-{attempt}.{suffix}"


@dataclass(frozen=True)
class Left:
    """What one attempt at an image left here, be it whole or half-written."""

    job_id: int
    index: int
    attempt: int
    name: str


def upload_key(sha256: str) -> str:
    """Return the key of the picture that people uploaded whose bytes have this hash."""
    return f"uploads/{sha256[:2]}/{sha256}.png"


class Storage:
    """Objects by key under one URL: a folder's path, `file://…`, or `s3://bucket/prefix` with the usual AWS_*.

    `?endpoint_url=…&region_name=…` behind an S3 URL names another service than Amazon's. Safe for many threads; the
    connection is made at the first use, so after a fork.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        if parts.scheme not in {"", "file", "s3"}:
            raise SettingsError(f"FARM_STORAGE_URL={url!r}: must be a folder or s3://bucket/prefix.")
        self._folder = None if parts.scheme == "s3" else Path(url.removeprefix("file://")).absolute()
        self._root = str(self._folder or f"{parts.netloc}{parts.path}".rstrip("/"))
        self._options = dict(parse_qsl(parts.query)) if parts.scheme == "s3" else {}
        if unknown := self._options.keys() - _S3_OPTIONS:
            raise SettingsError(f"FARM_STORAGE_URL: {sorted(unknown)} is unknown; S3 takes {sorted(_S3_OPTIONS)}.")

    def put(self, key: str, data: bytes) -> None:
        """Store `data` under `key`, whole and durable when this returns; storing the same again does nothing.

        Raises StorageError if it cannot, or if other data lies there already; nothing half-written stays.
        """
        path = self._path(key)
        with _reported(f"storing {key}"):
            if self._files.exists(path):
                if self._files.cat_file(path) != data:
                    raise StorageError(f"storing {key}: there is another object of that name; nothing is overwritten")
            elif self._folder:
                _write_synced(Path(path), data)
            else:
                self._files.pipe_file(path, data)  # one PUT: S3 shows it whole or not at all

    def get(self, key: str) -> bytes:
        """Return the object under `key`. Raises NotFound, or StorageError."""
        with _reported(f"reading {key}"):
            try:
                return bytes(self._files.cat_file(self._path(key)))
            except (FileNotFoundError, IsADirectoryError):
                raise NotFound(f"There is no stored object {key}.") from None

    def exists(self, key: str) -> bool:
        """True if an object lies under `key`. Raises StorageError."""
        with _reported(f"looking for {key}"):
            return bool(self._files.isfile(self._path(key)))

    def delete(self, prefix: str) -> None:
        """Delete the object `prefix` and all objects `prefix/…`, if there are any. Raises StorageError."""
        path = self._path(prefix)
        with _reported(f"deleting {prefix}"):
            try:
                self._files.rm(path, recursive=True)
            except FileNotFoundError:
                return

    def jobs(self) -> Iterator[list[int]]:
        """Yield the ids of the jobs under which anything lies, some at a time. Raises StorageError."""
        for shelf in self._names("jobs"):
            yield [int(name) for name in self._names(f"jobs/{shelf}") if name.isdecimal()]

    def left(self) -> Iterator[list[Left]]:
        """Yield what attempts left here, those of some jobs at a time. Raises StorageError."""
        for shelf in self._names("jobs"):
            prefix = f"jobs/{shelf}"
            with _reported(f"listing {prefix}"):
                names = sorted(self._files.find(self._path(prefix)))
            yield [left for name in names if (left := _left(name.removeprefix(f"{self._root}/")))]

    def discard(self, left: Left) -> None:
        """Delete what an attempt left, if it is still there. Raises StorageError."""
        with _reported(f"deleting {left.name}"), suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{left.name}")

    def uploads(self) -> Iterator[list[str]]:
        """Yield the SHA-256 of the uploaded pictures that lie here, some at a time. Raises StorageError."""
        for shelf in self._names("uploads"):
            yield [name.removesuffix(".png") for name in self._names(f"uploads/{shelf}") if name.endswith(".png")]

    def check(self) -> None:
        """Raise StorageError unless objects can be stored and deleted now."""
        name = f"check-{uuid.uuid4().hex}"
        self.put(name, b"")
        self.delete(name)

    def tidy(self, seconds: float) -> int:
        """Delete checks and half-written uploads that killed processes left `seconds` ago or more; return how many.

        What attempts left half-written is `left`. Raises StorageError.
        """
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
        """Return what the disk of a folder still takes; None for a bucket, which has no end."""
        if self._folder is None:
            return None
        existing = next(folder for folder in (self._folder, *self._folder.parents) if folder.exists())
        return shutil.disk_usage(existing).free

    def _names(self, prefix: str) -> list[str]:
        """Return the names right under `prefix`, in their order; under "" all at the top."""
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
            raise ValueError(f"{key!r} is no key of the storage")
        return f"{self._root}/{key}"


def _left(name: str) -> Left | None:
    """Return whose the object `name` is; None for what lies where no attempt puts anything."""
    folder, _, base = name.rpartition("/")
    parts = _OF_ATTEMPT.fullmatch(base)
    if not parts or folder != job_prefix(int(parts[1])):
        return None
    return Left(int(parts[1]), int(parts[2]), int(parts[3]), name)


@contextmanager
def _reported(what: str) -> Iterator[None]:
    """Turn what a storage raises into StorageError, with a reason for people."""
    try:
        yield
    except OSError as error:  # S3's answers too, as s3fs translates them
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageError(f"{what}: the disk is full; delete jobs or free space, then retry") from error
        raise StorageError(f"{what}: {error.strerror or error or type(error).__name__}") from error
    except BotoCoreError as error:  # no answer, no credentials
        raise StorageError(f"{what}: {error}") from error


def _write_synced(path: Path, data: bytes) -> None:
    """Write a file whole under its name, on the disk before this returns: a power cut leaves all of it or nothing."""
    _make_folders(path.parent)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with fresh.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _make_folders(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
