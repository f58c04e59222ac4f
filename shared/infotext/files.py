"""Texts in picture files: where PNG, JPEG and WebP carry what made them, for writing and for reading.

PNG has a text chunk `parameters`. JPEG and WebP have EXIF, whose UserComment begins with the code of its letters
(CIPA DC-008, 4.6.6); the ecosystem writes and reads UTF-16, high byte first. Other programs put theirs into other
chunks, tags and codings. Of a comment that may be anything only that is read which is known for parameters.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from PIL import ExifTags, Image
from PIL.PngImagePlugin import iTXt

from shared.infotext import invokeai, novelai, reader
from shared.infotext.found import bare, loaded
from shared.infotext.reader import MOST_CHARACTERS

CHUNK: Final = "parameters"
POSTPROCESSING: Final = "postprocessing"  # what was done to a picture that was made before
MOST_BYTES: Final = 4 * MOST_CHARACTERS  # of a comment that are looked at
_UTF_16: Final = b"UNICODE\x00"
_ASCII: Final = b"ASCII\x00\x00\x00"
_JIS: Final = b"JIS\x00\x00\x00\x00\x00"
_UNSAID: Final = b"\x00" * 8
_UTF_8: Final = b"\xef\xbb\xbf"
_BYTE_ORDERS: Final = {_UTF_8: "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_SEGMENT: Final = 65_533  # most bytes of one JPEG segment, without its length
_MOST_EXIF: Final = _SEGMENT - 64  # in a JPEG, beside what EXIF itself takes
_COMMENT: Final = b"\xff\xfe"  # marker of a JPEG's comment
_WHOLE: Final = ("invokeai_metadata", "sd-metadata", "prompt", "generation_data", "workflow")
"""Chunks that hold JSON that says all: InvokeAI's of today and of its second version, ComfyUI's, others'."""
_OF_EASY_DIFFUSION: Final = frozenset({"prompt", "seed"})  # each of its fields has a chunk of its own
_TAGS: Final = (
    *(ExifTags.Base.Model, ExifTags.Base.Make, ExifTags.Base.ImageDescription),  # of ComfyUI's WebPs
    ExifTags.Base.XPComment,
)
_PREFIX: Final = re.compile(r"\s*(?:prompt|workflow|parameters):(?=\s*[{\w])", re.IGNORECASE)
_XMP: Final = re.compile(r"<exif:UserComment\b[^>]{0,99}>\s*(?:<rdf:\w{1,9}\b[^>]{0,99}>\s*){0,2}([^<]*)")


def exif(text: str) -> bytes:
    """Return an EXIF block, high byte first, whose UserComment is `text`."""
    block = Image.Exif()
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = _UTF_16 + text.encode("utf-16-be")
    return block.tobytes()


def jpeg(text: str) -> dict[str, bytes]:
    """Return Pillow's options that save `text` in a JPEG: EXIF, or comments if it is too long for EXIF."""
    block = exif(text)
    return {"exif": block} if len(block) <= _MOST_EXIF else {"extra": _comments(text.encode())}


def _comments(data: bytes) -> bytes:
    pieces = [data[start : start + _SEGMENT] for start in range(0, len(data), _SEGMENT)]
    return b"".join(_COMMENT + (len(piece) + 2).to_bytes(2, "big") + piece for piece in pieces)


def text(picture: Image.Image) -> str:
    """Return the text of how a picture was made; without one a photograph's comment, or an empty text.

    Decodes the picture, since texts may follow its pixels. Raises the errors of Pillow for damaged files.
    """
    picture.load()
    said = _of_chunks(picture)[: MOST_CHARACTERS + 1]
    if reader.describes_picture(said):
        return said
    comments = (comment[: MOST_CHARACTERS + 1] for comment in _comments_of(picture))
    return next((comment for comment in comments if reader.describes_picture(comment)), said)


def _of_chunks(picture: Image.Image) -> str:
    """Return what a PNG's chunks say, of whatever program."""
    texts = {str(name): value for name, value in picture.info.items() if isinstance(value, str)}
    chunks = {name: _mended(value).rstrip("\x00") for name, value in texts.items()}
    if reader.describes_picture(chunks.get(CHUNK, "")):
        return chunks[CHUNK]
    if chunks.get("Software") == novelai.SOFTWARE:
        return novelai.text(chunks, picture.size) or json.dumps(chunks, ensure_ascii=False)
    if whole := next((chunks[name] for name in _WHOLE if loaded(chunks.get(name)) is not None), ""):
        return whole
    if invokeai.DREAM in chunks:
        return json.dumps({invokeai.DREAM: chunks[invokeai.DREAM]}, ensure_ascii=False)
    if {bare(name) for name in chunks} >= _OF_EASY_DIFFUSION:
        return json.dumps(
            {name: value for name, value in chunks.items() if not name.startswith("XML")}, ensure_ascii=False
        )
    return chunks.get(CHUNK, "")


def _mended(chunk: str) -> str:
    """Return the text of a chunk: in those that are Latin-1 by PNG's rules many programs write UTF-8."""
    if isinstance(chunk, iTXt):
        return str(chunk)
    try:
        return chunk.encode("latin-1").decode()
    except UnicodeError:
        return chunk


def _comments_of(picture: Image.Image) -> Iterator[str]:
    """Yield the texts in which picture files carry comments of any kind."""
    yield from _of_exif(picture)
    yield _of_xmp(picture)
    comment = picture.info.get("comment")
    comments = [data for kind, data in getattr(picture, "applist", []) if kind == "COM"] or [comment]
    yield _letters(_first_bytes(data for data in comments if isinstance(data, bytes)))


def _of_exif(picture: Image.Image) -> Iterator[str]:
    """Yield the texts in a picture's EXIF; what is damaged of it says nothing."""
    with suppress(Exception):  # Pillow raises whatever comes, and the pixels are whole
        block = picture.getexif()
        for holder in (block.get_ifd(ExifTags.IFD.Exif), block):
            if comment := _as_bytes(holder.get(ExifTags.Base.UserComment)):
                yield _decoded(comment)
        for tag in _TAGS:
            if described := _as_bytes(block.get(tag)):
                yield _PREFIX.sub("", _letters(described), count=1)


def _of_xmp(picture: Image.Image) -> str:
    """Return the user's comment in a picture's XMP."""
    packet = picture.info.get("XML:com.adobe.xmp") or picture.info.get("xmp") or ""
    xml = packet.decode(errors="replace") if isinstance(packet, bytes) else str(packet)
    comment = _XMP.search(xml[:MOST_BYTES])
    return html.unescape(comment[1]) if comment else ""


def _as_bytes(value: object) -> bytes:
    """Return the value of an EXIF tag as its bytes, whatever type it has."""
    if isinstance(value, str):
        return value.encode("latin-1", errors="replace")[:MOST_BYTES]
    if isinstance(value, tuple) and all(isinstance(one, int) and 0 <= one < 256 for one in value):
        return bytes(value)[:MOST_BYTES]
    return value[:MOST_BYTES] if isinstance(value, bytes) else b""


def _first_bytes(pieces: Iterable[bytes]) -> bytes:
    """Return the beginning of what comes in pieces, however many there are."""
    joined = bytearray()
    for piece in pieces:
        joined += piece[: MOST_BYTES - len(joined)]
        if len(joined) == MOST_BYTES:
            break
    return bytes(joined)


def _decoded(comment: bytes) -> str:
    """Return the text of a UserComment, behind the mark of its letters; some put UTF-8 behind any."""
    mark, letters = comment[:8], comment[8:]
    if mark == _JIS:
        return _decoded_as(letters, ("iso2022_jp", "utf-8", "shift_jis"))
    is_marked = mark in {_ASCII, _UNSAID} or mark.upper() == _UTF_16
    return _letters(letters if is_marked else comment)


def _letters(data: bytes) -> str:
    """Return text whose coding is not said: UTF-16 where it has bytes of zero, as all of these texts then do."""
    marks = (mark for mark in _BYTE_ORDERS if data.startswith(mark))
    mark = next(marks, b"")
    letters = data[len(mark) :]
    if mark == _UTF_8 or not (mark or b"\x00" in letters.rstrip(b"\x00")):
        return _decoded_as(letters.rstrip(b"\x00"), ("utf-8", "utf-16-be", "latin-1"))
    letters = letters if len(letters) % 2 == 0 else letters.removesuffix(b"\x00")
    guess = "utf-16-le" if letters[1::2].count(0) > letters[::2].count(0) else "utf-16-be"
    return letters.decode(_BYTE_ORDERS.get(mark, guess), errors="replace").rstrip("\x00")


def _decoded_as(data: bytes, codings: tuple[str, ...]) -> str:
    for coding in codings:
        with suppress(UnicodeError):
            return data.decode(coding).rstrip("\x00")
    return data.decode(errors="replace").rstrip("\x00")
