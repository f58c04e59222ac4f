"""Pictures that people send, read with distrust: whatever bytes come in, a plain PNG goes out, or a reason."""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from itertools import islice
from threading import BoundedSemaphore, Lock
from typing import Final, TypeVar

from PIL import ExifTags, Image, UnidentifiedImageError

from shared.errors import FieldError, Refused, TooLarge, Unavailable
from shared.settings import Limits

T = TypeVar("T")

_FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # no other decoder is let near the bytes
_MOST_ASPECT: Final = 16  # what is longer would be enlarged beyond measure to cover a picture
_PATIENCE_SECONDS: Final = 30.0
_MOST_AT_ONCE: Final = 4  # the one that is read, and who waits for it: each keeps a thread
_COMPRESSION: Final = 3  # of zlib's 9: half the time of its default for a tenth more bytes
_MOST_SCANS: Final = 64  # of a JPEG: each costs a pass over all pixels, however few bytes it has
_MOST_SEGMENTS: Final = 10_000  # each is an object in memory
_MARKER: Final = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # of a segment; restarts and stuffed bytes are none
_SCAN: Final = b"\xda"
_END: Final = b"\xd9"
_DATA_URL: Final = re.compile(r"data:[\w/+.;=-]{0,100};base64,", re.ASCII)
_OTHERS: Final = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF"),
    (b"II*\x00", "a TIFF"),
    (b"MM\x00*", "a TIFF"),
    (b"8BPS", "a Photoshop file"),
    (b"<", "SVG, HTML or XML"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its EXIF orientation; 1 is upright."""


@dataclass(frozen=True)
class Picture:
    """A picture as it is stored: a PNG (grey, RGB or RGBA, 8 bits) without metadata."""

    png: bytes
    width: int
    height: int

    @cached_property
    def sha256(self) -> str:
        """Of the PNG's bytes: the name that it goes by."""
        return sha256(self.png).hexdigest()


class Intake:
    """Reads pictures for many threads, one at a time: a large one takes a hundred megabytes while it is read."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turn = Lock()
        self._places = BoundedSemaphore(_MOST_AT_ONCE)

    def read(self, data: bytes, field: str) -> Picture:
        """Return the picture in the bytes of a file, upright; of an animation the first one. Raises as `look` does."""

        def take(opened: Image.Image) -> Picture:
            self._check_aspect(opened.size, field)
            return _stored(_plain(_upright(opened)))

        return self.look(data, field, take)

    def look(self, data: bytes, field: str, take: Callable[[Image.Image], T]) -> T:
        """Return what `take` makes of the picture in the bytes of a file, opened but not decoded yet.

        Raises Refused that names `field`, TooLarge, and Unavailable when too many wait, or its turn does not come.
        """
        if len(data) > self._limits.max_upload_bytes:
            raise TooLarge("The file is too large.", (self._error(field, f"is {len(data):,} bytes large"),))
        with _held(self._places, 0), _held(self._turn, _PATIENCE_SECONDS):
            return self._look(data, field, take)

    def read_url(self, url: str, field: str) -> Picture:
        """Return the picture in a data URL, as `read` does."""
        head = _DATA_URL.match(url)
        if not head:
            raise self._refused(field, "is a data URL without base64")
        try:
            data = base64.b64decode(url[head.end() :].encode(), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise self._refused(field, "is a data URL whose base64 is damaged") from None
        return self.read(data, field)

    def _look(self, data: bytes, field: str, take: Callable[[Image.Image], T]) -> T:
        self._check_segments(data, field)
        try:
            with Image.open(BytesIO(data), formats=_FORMATS) as opened:
                self._check_size(opened.size, field)  # of the header: nothing is decoded yet
                return take(opened)
        except UnidentifiedImageError:
            raise self._refused(field, _unlike(data)) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise self._refused(field, "would unpack to more pixels than any picture has") from None
        except Refused:
            raise
        except Exception as error:  # a decoder of damaged bytes raises whatever comes
            raise self._refused(field, f"is damaged or cut off: {error or type(error).__name__}"[:200]) from error

    def _check_segments(self, data: bytes, field: str) -> None:
        kinds = Counter(islice(_segments(data), _MOST_SEGMENTS))
        if kinds[_SCAN] > _MOST_SCANS or kinds.total() == _MOST_SEGMENTS:
            raise self._refused(field, "is a JPEG of more passes or parts than any camera or program makes")

    def _check_size(self, size: tuple[int, int], field: str) -> None:
        width, height = size
        if width * height > self._limits.max_upload_pixels:
            raise self._refused(field, f"has {width}x{height} pixels")

    def _check_aspect(self, size: tuple[int, int], field: str) -> None:
        width, height = size
        if max(size) > _MOST_ASPECT * min(size):
            raise self._refused(field, f"is {width}x{height}, more than {_MOST_ASPECT} times as long as wide")

    def _refused(self, field: str, message: str) -> Refused:
        return Refused(f"The picture {message}.", (self._error(field, message),))

    def _error(self, field: str, message: str) -> FieldError:
        megabytes, megapixels = self._limits.max_upload_mb, self._limits.max_upload_megapixels
        accepted = f"a PNG, JPEG, WebP, BMP or GIF of at most {megabytes} MB and {megapixels} megapixels"
        return FieldError(field, message, accepted)


@contextmanager
def _held(place: Lock | BoundedSemaphore, patience_seconds: float) -> Iterator[None]:
    """Hold a place among those who have pictures read. Raises Unavailable if none gets free in time."""
    if not place.acquire(timeout=patience_seconds):
        raise Unavailable("Too many pictures are being read; try again.")
    try:
        yield
    finally:
        place.release()


def _segments(data: bytes) -> Iterator[bytes]:
    """Yield the kinds of a JPEG's segments up to its end; of other data nothing. (ITU-T T.81, B.1)"""
    place = 2 if data.startswith(b"\xff\xd8\xff") else len(data)
    while (marker := _MARKER.search(data, place)) and marker[1] != _END:
        yield marker[1]
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])


def _unlike(data: bytes) -> str:
    """Return what bytes are that are no picture which is read here."""
    if not data:
        return "is empty"
    if data[4:8] == b"ftyp":
        return "is HEIC, AVIF or a video, which are not read here"
    kind = next((kind for magic, kind in _OTHERS if data.lstrip().startswith(magic)), "no picture that is read here")
    return f"is {kind}"


def _upright(picture: Image.Image) -> Image.Image:
    """Return a picture decoded, and turned as its EXIF says; EXIF that cannot be read says nothing."""
    picture.load()
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - as above: the pixels are whole, so it is no reason to refuse them
        return picture
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def _plain(picture: Image.Image) -> Image.Image:
    """Return a picture as 8 bits of grey, RGB or RGBA."""
    if picture.mode.startswith("I"):  # 16 bits of grey
        return picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    return picture if picture.mode in {"L", "RGB"} else picture.convert("L" if picture.mode == "1" else "RGB")


def _stored(picture: Image.Image) -> Picture:
    picture.info = {}  # colour profiles, texts, thumbnails: none of it is the picture
    out = BytesIO()
    picture.save(out, "PNG", compress_level=_COMPRESSION)
    return Picture(out.getvalue(), picture.width, picture.height)
