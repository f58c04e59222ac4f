"""Writes a PNG from above to below, some rows at a time, so that no whole picture is ever in memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_RGB: Final = struct.pack(">BBBBB", 8, 2, 0, 0, 0)  # bits, colour type, compression, filter method, no interlace
_UP: Final = 2  # each byte is stored as its difference from the one above
_LEVEL: Final = 4
_ROWS_AT_ONCE: Final = 64


class PngWriter:
    """A PNG of 8 bits RGB in the making; `texts` are stored in it by their keywords (Latin-1, at most 79 letters)."""

    def __init__(self, width: int, height: int, texts: Mapping[str, str]) -> None:
        self._out = BytesIO()
        self._out.write(_SIGNATURE)
        self._chunk(b"IHDR", struct.pack(">II", width, height) + _RGB)
        for keyword, text in texts.items():
            self._chunk(b"iTXt", keyword.encode("latin-1") + b"\0\1\0\0\0" + zlib.compress(text.encode()))
        self._packer = zlib.compressobj(_LEVEL)
        self._above = np.zeros((1, width * 3), np.uint8)
        self._missing = height

    def write(self, pixels: NDArray[np.uint8]) -> None:
        """Add rows [rows, width, 3] below those that are there."""
        rows = pixels.reshape(len(pixels), -1)
        self._missing -= len(rows)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            self._write(rows[start : start + _ROWS_AT_ONCE])

    def _write(self, rows: NDArray[np.uint8]) -> None:
        filtered = np.full((len(rows), rows.shape[1] + 1), _UP, np.uint8)
        filtered[:, 1:] = rows
        filtered[1:, 1:] -= rows[:-1]
        filtered[0, 1:] -= self._above[0]
        self._above = rows[-1:].copy()
        self._chunk(b"IDAT", self._packer.compress(filtered.tobytes()))

    def ended(self) -> bytes:
        """Return the whole file. Raises ValueError unless it has as many rows as it was opened for."""
        if self._missing:
            raise ValueError(f"{self._missing} rows are missing")
        self._chunk(b"IDAT", self._packer.flush())
        self._chunk(b"IEND", b"")
        return self._out.getvalue()

    def _chunk(self, kind: bytes, data: bytes) -> None:
        if data or kind == b"IEND":
            self._out.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
