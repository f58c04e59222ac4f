"""Texts in picture files: where PNG, JPEG and WebP carry what made them, for writing and for reading.

PNG has a text chunk `parameters`. JPEG and WebP have EXIF, whose UserComment begins with the code of its letters
(CIPA DC-008, 4.6.6); the ecosystem writes and reads UTF-16, high byte first.
"""

from __future__ import annotations

from typing import Final

from PIL import ExifTags, Image

from shared.infotext import novelai

CHUNK: Final = "parameters"
_UTF_16: Final = b"UNICODE\x00"
_ASCII: Final = b"ASCII\x00\x00\x00"
_UNSAID: Final = b"\x00" * 8
_BYTE_ORDER: Final = "\ufeff"  # a mark that some put before UTF-16
_SEGMENT: Final = 65_533  # most bytes of one JPEG segment, without its length
_MOST_EXIF: Final = _SEGMENT - 64  # in a JPEG, beside what EXIF itself takes
_COMMENT: Final = b"\xff\xfe"  # marker of a JPEG's comment


def exif(text: str) -> bytes:
    """Return an EXIF block, high byte first, whose UserComment is `text`."""
    block = Image.Exif()
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = _UTF_16 + text.encode("utf-16-be")
    return block.tobytes()


def jpeg(text: str) -> dict[str, bytes]:
    """Return what Pillow is to save into a JPEG for `text`: EXIF, or comments where that would be too long for EXIF."""
    block = exif(text)
    return {"exif": block} if len(block) <= _MOST_EXIF else {"extra": _comments(text.encode())}


def _comments(data: bytes) -> bytes:
    pieces = [data[start : start + _SEGMENT] for start in range(0, len(data), _SEGMENT)]
    return b"".join(_COMMENT + (len(piece) + 2).to_bytes(2, "big") + piece for piece in pieces)


def text(picture: Image.Image) -> str:
    """Return the text that an opened picture carries; empty where it has none.

    Decodes the picture, since texts may stand behind its pixels: raises whatever Pillow raises for damaged files.
    """
    picture.load()
    chunk = picture.info.get(CHUNK)
    if isinstance(chunk, str):
        return chunk
    if picture.info.get("Software") == novelai.SOFTWARE:
        return novelai.text(picture.info, picture.size)
    comment = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, bytes):
        return _decoded(comment)
    comments = [data for kind, data in getattr(picture, "applist", []) if kind == "COM"]
    return b"".join(comments).decode(errors="replace")


def _decoded(comment: bytes) -> str:
    """Return the text of a UserComment; with the low byte first, as some write it, letters have their zeros behind."""
    code, letters = comment[:8], comment[8:]
    if code == _UTF_16:
        is_swapped = letters[1::2].count(0) > letters[::2].count(0)
        written = letters.decode("utf-16-le" if is_swapped else "utf-16-be", errors="replace")
        return written.removeprefix(_BYTE_ORDER).rstrip("\x00")
    plain = letters if code in {_ASCII, _UNSAID} else comment
    return plain.decode(errors="replace").rstrip("\x00")
