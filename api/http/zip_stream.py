"""A zip file made while it is sent: one picture at a time is in memory, nothing on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import RawIOBase
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from typing_extensions import Buffer

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say: the same pictures make the same bytes


class _Sink(RawIOBase):
    """Keeps what was written until it is taken; cannot seek, so that ZipFile writes sizes behind the data."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def zipped(files: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """Yield a zip file of (name, content) pairs; stored as they are, since pictures are compressed already."""
    sink = _Sink()
    with ZipFile(sink, "w", ZIP_STORED) as archive:
        for name, data in files:
            archive.writestr(ZipInfo(name, _EPOCH), data)
            yield sink.take()
    yield sink.take()
