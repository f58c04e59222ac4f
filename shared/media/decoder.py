"""Decodes pictures that people send, in a confined process (`shared.confined`): bytes in, a plain PNG out.

An answer holds either the result or, in `refused`, the reason why there is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from typing import Any, Final, Literal

from PIL import ExifTags, Image, UnidentifiedImageError

from shared.errors import Unreadable
from shared.infotext import files
from shared.media import picture_parts

Wish = Literal["picture", "thumbnail", "fitted", "text"]

_FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # no other decoder sees the bytes
THUMBNAIL: Final = 192  # pixels of the longer side
_MOST_ASPECT: Final = 16  # a longer one would be enlarged enormously to cover a picture
_COMPRESSION: Final = 3  # of zlib's 9: half the time of its default for a tenth more bytes
_LONGEST: Final = 200  # characters of a decoder's message
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
"""The operation that turns a picture upright, by its EXIF orientation; 1 is upright."""


@dataclass(frozen=True)
class Question:
    """A picture's file, and whether its picture, a small one of it or its text is wanted.

    `fitted` wants the pixels themselves, three bytes each, of a picture no larger than `box`.
    """

    wish: Wish
    most_pixels: int
    data: bytes
    box: tuple[int, int] = (THUMBNAIL, THUMBNAIL)  # width and height

    def packed(self) -> bytes:
        box = {"box": self.box} if self.wish == "fitted" else {}
        return joined({"wish": self.wish, "most_pixels": self.most_pixels} | box, self.data)

    @classmethod
    def unpacked(cls, packed: bytes) -> Question:
        head, data = parted(packed)
        return cls(**head, data=data)


@dataclass(frozen=True)
class Answer:
    """A PNG, a small WebP or pixels with their size, or a text; or the reason why there is none."""

    refused: str = ""
    width: int = 0
    height: int = 0
    data: bytes = b""

    def packed(self) -> bytes:
        return joined({name: value for name, value in asdict(self).items() if name != "data"}, self.data)

    @classmethod
    def unpacked(cls, packed: bytes) -> Answer:
        head, data = parted(packed)
        return cls(**head, data=data)


def answer(packed: bytes) -> bytes:
    """Answer a packed question; the confined process calls it."""
    question = Question.unpacked(packed)
    try:
        take = partial(_fitted, box=question.box) if question.wish == "fitted" else _TAKES[question.wish]
        return _taken(question, take).packed()
    except Unreadable as error:
        return Answer(refused=str(error)).packed()


def _taken(question: Question, take: Callable[[Image.Image], Answer]) -> Answer:
    data = picture_parts.checked(question.data)
    try:
        return _opened(data, question.most_pixels, take)
    except Unreadable:
        if not picture_parts.is_jpeg_without_end(data):
            raise
        return _opened(picture_parts.ended(data), question.most_pixels, take)


def _opened(data: bytes, most_pixels: int, take: Callable[[Image.Image], Answer]) -> Answer:
    """Return the result of `take` for the picture in a file, opened but not decoded yet. Raises Unreadable."""
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as opened:
            _check_size(opened, most_pixels)
            return take(opened)
    except UnidentifiedImageError:
        raise Unreadable(_unlike(data)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unreadable("would unpack to more pixels than any picture has") from None
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # a decoder of damaged bytes may raise anything
        raise Unreadable(f"is damaged or cut off: {error or type(error).__name__}"[:_LONGEST]) from error


def _check_size(opened: Image.Image, most_pixels: int) -> None:
    if opened.width * opened.height > most_pixels:  # by the header: nothing is decoded yet
        raise Unreadable(f"has {opened.width}x{opened.height} pixels")


def _picture(opened: Image.Image) -> Answer:
    if max(opened.size) > _MOST_ASPECT * min(opened.size):
        raise Unreadable(f"is {opened.width}x{opened.height}, more than {_MOST_ASPECT} times as long as wide")
    plain = _plain(_upright(opened))
    plain.info = {}  # no colour profiles, texts or thumbnails
    out = BytesIO()
    plain.save(out, "PNG", compress_level=_COMPRESSION)
    return Answer(width=plain.width, height=plain.height, data=out.getvalue())


def _thumbnail(opened: Image.Image) -> Answer:
    opened.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))  # a JPEG is decoded at a fraction of its size
    plain = _plain(_upright(opened))
    plain.thumbnail((THUMBNAIL, THUMBNAIL))
    plain.info = {}
    out = BytesIO()
    plain.save(out, "WEBP", quality=80)
    return Answer(width=plain.width, height=plain.height, data=out.getvalue())


def _fitted(opened: Image.Image, box: tuple[int, int]) -> Answer:
    width, height = box
    opened.draft("RGB", (2 * width, 2 * height))
    plain = _plain(_upright(opened)).convert("RGB")
    plain.thumbnail((width, height), Image.Resampling.LANCZOS)
    return Answer(width=plain.width, height=plain.height, data=plain.tobytes())


def _text(opened: Image.Image) -> Answer:
    return Answer(data=files.text(opened).encode(errors="replace"))


_TAKES: Final[dict[Wish, Callable[[Image.Image], Answer]]] = {
    "picture": _picture,
    "thumbnail": _thumbnail,
    "text": _text,
}


def _unlike(data: bytes) -> str:
    """Return what a file is that holds no picture of a known format."""
    if not data:
        return "is empty"
    if data[4:8] == b"ftyp":
        return "is HEIC, AVIF or a video, which the farm does not read"
    kind = next((kind for magic, kind in _OTHERS if data.lstrip().startswith(magic)), None)
    return f"is {kind}" if kind else "is not a picture of a format that the farm reads"


def _upright(picture: Image.Image) -> Image.Image:
    """Return a picture decoded, and turned as its EXIF says; unreadable EXIF is ignored."""
    picture.load()
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - as above, but the pixels are whole
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


def joined(head: Mapping[str, Any], data: bytes) -> bytes:
    """Return one value of JSON and the bytes behind it as one message."""
    return json.dumps(head).encode() + b"\n" + data


def parted(packed: bytes) -> tuple[dict[str, Any], bytes]:
    """Return what was `joined`."""
    head, _, data = packed.partition(b"\n")
    return json.loads(head), data
