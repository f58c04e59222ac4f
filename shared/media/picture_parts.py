"""Checks the parts of a picture's file before a decoder sees it: refuses too many, and mends small damage.

Each part costs a decoder an object or a pass over all pixels, even if it has few bytes.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Final

from shared.errors import Unreadable

_MOST_PARTS: Final = 10_000
_MOST_SCANS: Final = 64  # of a JPEG: each is a pass over all pixels
_MOST_PADDING: Final = 1024  # bytes between a JPEG's segments: Pillow steps over each by itself
_TOO_MANY: Final = "has more parts than any camera or program makes"

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_ANCILLARY: Final = 0x20  # in the first letter of a chunk's name: a decoder can do without it (PNG, 5.4)

_JPEG: Final = b"\xff\xd8\xff"
_MARKER: Final = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # of a segment, unlike restarts and stuffed bytes
_SCAN: Final = b"\xda"
_END: Final = b"\xd9"

_GIF: Final = (b"GIF87a", b"GIF89a")
_GIF_EXTENSION: Final = 0x21
_BMP_COMPRESSION: Final = slice(30, 34)
_BMP_RUNS: Final = {1, 2}  # BI_RLE8, BI_RLE4: Pillow decodes them a byte at a time


def checked(data: bytes) -> bytes:
    """Return a picture's file that may be decoded; wrong checksums of a PNG's ancillary chunks are mended.

    Raises Unreadable for more parts than a picture has.
    """
    if data.startswith(_PNG):
        return _png(data)
    if data.startswith(_JPEG):
        kinds = Counter(islice(_segments(data), _MOST_PARTS))
        if kinds[_SCAN] > _MOST_SCANS or kinds.total() == _MOST_PARTS:
            raise Unreadable(_TOO_MANY)
    elif data.startswith(_GIF):
        _check(_gif_blocks(data))
    elif data.startswith(b"BM") and int.from_bytes(data[_BMP_COMPRESSION], "little") in _BMP_RUNS:
        raise Unreadable("is a run-length encoded BMP, which the farm does not read: save it without compression")
    return data


def is_jpeg_without_end(data: bytes) -> bool:
    """True if a JPEG breaks off after the start of its pixels: browsers show the part that is there."""
    kinds = list(_segments(data)) if data.startswith(_JPEG) else []
    return _SCAN in kinds and _END not in kinds


def ended(data: bytes) -> bytes:
    """Return a JPEG that breaks off with an end marker; its missing part is decoded as grey or flat."""
    return data.removesuffix(b"\xff") + b"\xff" + _END


def _check(parts: Iterator[object]) -> None:
    if next(islice(parts, _MOST_PARTS, None), None) is not None:
        raise Unreadable(_TOO_MANY)


def _png(data: bytes) -> bytes:
    """Return a PNG with its ancillary chunks' checksums mended. (PNG, 5.3)"""
    _check(_chunks(data))
    mended = bytearray(data)
    for start, end in _chunks(data):
        if data[start + 4] & _ANCILLARY:
            mended[end - 4 : end] = zlib.crc32(memoryview(data)[start + 4 : end - 4]).to_bytes(4)
    return bytes(mended)


def _chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of a PNG's whole chunks."""
    start = len(_PNG)
    while (end := start + 12 + int.from_bytes(data[start : start + 4])) <= len(data):
        yield start, end
        start = end


def _segments(data: bytes) -> Iterator[bytes]:
    """Yield the kinds of a JPEG's segments up to its end. (ITU-T T.81, B.1) Raises Unreadable for much padding."""
    place = 2
    is_scanned = False
    while True:
        marker = _MARKER.search(data, place)
        if not is_scanned and (marker.start() if marker else len(data)) - place > _MOST_PADDING:
            raise Unreadable("has more padding than any camera or program makes")
        if marker is None:
            return
        yield marker[1]
        if marker[1] == _END:
            return
        is_scanned = is_scanned or marker[1] == _SCAN
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])


def _gif_blocks(data: bytes) -> Iterator[int]:
    """Yield the lengths of the blocks before a GIF's first picture; the rest is never read. (GIF89a)"""
    packed = int.from_bytes(data[10:11])
    place = 13 + (3 * 2 ** ((packed & 0x07) + 1) if packed & 0x80 else 0)  # behind the header and its palette
    while data[place : place + 1] == bytes([_GIF_EXTENSION]):
        place += 2
        while place < len(data) and (length := data[place]):
            yield length
            place += 1 + length
        place += 1
        yield 0
