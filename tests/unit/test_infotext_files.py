"""Texts in picture files, in all three formats, and those of other programs."""

from __future__ import annotations

import json
import time
import tracemalloc
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from shared.infotext import files
from shared.infotext.reader import read
from worker.encode import picture

PIXELS = np.random.default_rng(7).integers(0, 256, (64, 96, 3), dtype=np.uint8)
VALUES = "\nSteps: 20, Seed: 7"
BODIES = ["a desert", "Ã©té", "砂漠 \u20ac 🐫 مرحبا", "x" * 200_000, "砂" * 100_000]
TEXTS = ["", *(body + VALUES for body in BODIES)]


def reopened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
@pytest.mark.parametrize(
    "text", TEXTS, ids=["empty", "plain", "Latin-1", "all letters", "long", "long, two bytes a letter"]
)
def test_every_format_carries_the_text(form, text):
    with reopened(picture(PIXELS, text, form)) as image:
        assert image.format == form.upper()
        assert files.text(image) == text


def test_a_png_has_the_pixels_as_they_were():
    with reopened(picture(PIXELS, "a", "png")) as image:
        assert image.text == {"parameters": "a"}
        assert np.array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_the_others_have_them_nearly(form):
    smooth = np.repeat(np.linspace(0, 255, 64 * 3).reshape(64, 1, 3), 96, axis=1).astype(np.uint8)
    with reopened(picture(smooth, "a", form)) as image:
        assert np.abs(np.asarray(image.convert("RGB"), np.int16) - smooth).mean() < 2


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_a_lower_quality_makes_a_smaller_file_with_the_same_text(form):
    good, poor = (picture(PIXELS, "a" + VALUES, form, quality=quality) for quality in (95, 20))
    assert len(poor) < len(good) / 2
    with reopened(poor) as image:
        assert files.text(image) == "a" + VALUES


def test_exif_is_what_the_ecosystem_reads():
    """Its programs take the UserComment for UTF-16, high byte first, behind the code of eight letters."""
    with reopened(picture(PIXELS, "aé", "jpeg")) as image:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment == b"UNICODE\x00\x00a\x00\xe9"
    assert files.exif("a").startswith(b"Exif\x00\x00MM")


def exif(tags: dict[int, Any], *, is_first: bool = False, order: str = "<") -> bytes:
    """Return an EXIF block with these tags in its first directory, or in the one that EXIF names for them."""
    block = Image.Exif()
    block.endian = order
    holder = block if is_first else block.get_ifd(ExifTags.IFD.Exif)
    holder.update(tags)
    return block.tobytes()


def with_exif(form: str, block: bytes) -> str:
    """Return the text that is read from a picture file with this EXIF block."""
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, form, exif=block)
    with reopened(out.getvalue()) as image:
        return files.text(image)


COMMENT = ExifTags.Base.UserComment


@pytest.mark.parametrize(
    ("mark", "coding"),
    [
        (b"UNICODE\x00", "utf-16-be"),
        (b"UNICODE\x00", "utf-16-le"),
        (b"UNICODE\x00", "utf-16"),  # with the mark of its byte order
        (b"UNICODE\x00", "utf-8"),
        (b"UNICODE\x00", "utf-8-sig"),
        (b"Unicode\x00", "utf-16-le"),
        (b"ASCII\x00\x00\x00", "utf-8"),
        (b"JIS\x00\x00\x00\x00\x00", "iso2022_jp"),
        (b"JIS\x00\x00\x00\x00\x00", "utf-8"),
        (b"\x00" * 8, "utf-8"),
        (b"\x00" * 8, "utf-16-le"),
        (b"", "utf-8"),
        (b"", "utf-16"),
    ],
)
@pytest.mark.parametrize("end", [b"", b"\x00", b"\x00\x00"])
def test_comments_of_all_letter_codings_are_read(mark, coding, end):
    text = "海辺の灯台, 夕方" + VALUES
    assert with_exif("JPEG", exif({COMMENT: mark + text.encode(coding) + end})) == text


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first directory", "own directory"])
def test_comments_are_found_wherever_programs_put_them(form, order, is_first):
    comment = b"UNICODE\x00" + ("élan" + VALUES).encode("utf-16-le")
    assert with_exif(form, exif({COMMENT: comment}, is_first=is_first, order=order)) == "élan" + VALUES


def test_a_latin_comment_is_read_as_it_is():
    assert with_exif("JPEG", exif({COMMENT: b"ASCII\x00\x00\x00" + ("\xe9lan" + VALUES).encode("latin-1")})).startswith(
        "élan"
    )


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    "comment", ["CREATOR: gd-jpeg v1.0 (using IJG JPEG v62), quality = 90", "Created with GIMP", "None", "a cat", "",
                "LEAD Technologies Inc. V1.01", "File written by Adobe Photoshop\xa8 5.2",
                '{"camera": "front", "ts": 5}',
                "Processed By eBay with ImageMagick, z1.1.0. ||B2", "Compressed by jpeg-recompress", "\x00\x00\x00"],
)  # fmt: skip
def test_a_photographs_comment_is_no_text(form, comment):
    assert with_exif(form, exif({COMMENT: b"ASCII\x00\x00\x00" + comment.encode()})) == ""
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", comment=comment.encode())
    with reopened(out.getvalue()) as image:
        assert files.text(image) == ""


def test_comments_of_gifs_are_read():
    out = BytesIO()
    Image.new("P", (8, 8)).save(out, "GIF", comment=("a cat" + VALUES).encode())
    with reopened(out.getvalue()) as image:
        assert files.text(image) == "a cat" + VALUES


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
def test_chunks_of_latin_letters_may_hold_utf_8(kind):
    text = ("élan 海边" + VALUES).encode()
    info = PngInfo()
    info.add(kind, b"parameters\x00" + (text if kind == b"tEXt" else b"\x00" + zlib.compress(text)))
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=info)
    with reopened(out.getvalue()) as image:
        assert files.text(image) == text.decode()


def test_damaged_exif_says_nothing():
    assert with_exif("PNG", b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff" + bytes(7)) == ""


@pytest.mark.parametrize("letters", [b"a, b: c", b"\xff\xfe" * 3, b"Steps: 1, Seed: 2, "])
def test_megabytes_of_comments_cost_next_to_nothing(letters):
    piece = (letters * 65_533)[:65_000]
    segment = b"\xff\xfe" + (len(piece) + 2).to_bytes(2, "big") + piece
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", extra=segment * 480)  # 31 MB
    with reopened(out.getvalue()) as image:
        image.load()
        tracemalloc.start()
        begin = time.process_time()
        found = read(files.text(image))
        seconds, (_, peak) = time.process_time() - begin, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert found.params == {}
    assert seconds < 2
    assert peak < 16 * 2**20


def test_a_text_behind_the_pixels_is_found():
    info = PngInfo()
    info.add(b"tEXt", b"parameters\x00behind", after_idat=True)
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=info)
    with reopened(out.getvalue()) as image:
        assert files.text(image) == "behind"


def of_novelai(comment: str) -> str:
    info = PngInfo()
    info.add_text("Software", "NovelAI")
    info.add_text("Description", "a {cat}, night")
    info.add_text("Comment", comment)
    out = BytesIO()
    Image.new("RGB", (64, 96)).save(out, "PNG", pnginfo=info)
    with reopened(out.getvalue()) as image:
        return files.text(image)


def test_a_picture_of_novelai_is_read():
    said = {"steps": 28, "sampler": "k_euler_ancestral", "seed": 7, "scale": 11.0, "uc": "bad: worse", "noise": 0.2}
    params = read(of_novelai(json.dumps(said))).params
    assert {name: params[name] for name in ("prompt", "negative_prompt", "sampler", "steps", "seed", "cfg_scale")} == {
        "prompt": "a {cat}, night", "negative_prompt": "bad: worse", "sampler": "Euler a", "steps": 28, "seed": 7,
        "cfg_scale": 11.0,
    }  # fmt: skip
    assert (params["width"], params["height"]) == (64, 96)


def test_what_a_picture_of_novelai_leaves_open_is_not_said():
    assert of_novelai('{"uc": null, "seed": null, "steps": 28}') == (
        "a {cat}, night\nSteps: 28, Size: 64x96, Clip skip: 2, ENSD: 31337"
    )


@pytest.mark.parametrize(
    "comment", ["", "no JSON", "[]", "7", "[" * 100_000, '{"seed": ' + "9" * 9000 + "}"], ids=range(6)
)
def test_a_comment_that_cannot_be_read_is_told_and_no_prompt(comment):
    found = read(of_novelai(comment))
    assert found.params == {}
    assert found.left_out[0].startswith("a text of NovelAI: it cannot be read")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_picture_without_parameters_has_none(form):
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, form)
    with reopened(out.getvalue()) as image:
        assert files.text(image) == ""
