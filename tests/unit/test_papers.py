"""Texts in picture files, in all three formats, and those of other programs."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from shared import papers
from shared.infotext.reader import read
from worker.pictures import picture

PIXELS = np.random.default_rng(7).integers(0, 256, (64, 96, 3), dtype=np.uint8)
TEXTS = ["a desert\nSteps: 20, Seed: 7", "砂漠 \u20ac 🐫 مرحبا\nSteps: 20", "", "x" * 200_000, "砂" * 100_000]


def reopened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("text", TEXTS, ids=["plain", "all letters", "empty", "long", "long, two bytes a letter"])
def test_every_format_carries_the_text(form, text):
    with reopened(picture(PIXELS, text, form)) as image:
        assert image.format == form.upper()
        assert papers.text(image) == text


def test_a_png_has_the_pixels_as_they_were():
    with reopened(picture(PIXELS, "a", "png")) as image:
        assert image.text == {"parameters": "a"}
        assert np.array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_the_others_have_them_nearly(form):
    smooth = np.repeat(np.linspace(0, 255, 64 * 3).reshape(64, 1, 3), 96, axis=1).astype(np.uint8)
    with reopened(picture(smooth, "a", form)) as image:
        assert np.abs(np.asarray(image.convert("RGB"), np.int16) - smooth).mean() < 2


def test_exif_is_what_the_ecosystem_reads():
    """Its programs take the UserComment for UTF-16, high byte first, behind the code of eight letters."""
    with reopened(picture(PIXELS, "aé", "jpeg")) as image:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment == b"UNICODE\x00\x00a\x00\xe9"
    assert papers.exif("a").startswith(b"Exif\x00\x00MM")


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        (b"UNICODE\x00" + "a cat, ß".encode("utf-16-le"), "a cat, ß"),
        (b"UNICODE\x00" + "\ufeffa cat".encode("utf-16-le"), "a cat"),
        (b"ASCII\x00\x00\x00a cat", "a cat"),
        (b"\x00" * 8 + b"a cat\x00", "a cat"),
        (b"a cat, no code", "a cat, no code"),
        (b"UNICODE\x00\x00", "\ufffd"),
        (b"UNICODE\x00", ""),
        (b"", ""),
    ],
)
def test_comments_of_other_programs(comment, text):
    block = Image.Exif()
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", exif=block.tobytes())
    with reopened(out.getvalue()) as image:
        assert papers.text(image) == text


def test_a_text_behind_the_pixels_is_found():
    info = PngInfo()
    info.add(b"tEXt", b"parameters\x00behind", after_idat=True)
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=info)
    with reopened(out.getvalue()) as image:
        assert papers.text(image) == "behind"


def of_novelai(comment: str) -> str:
    info = PngInfo()
    info.add_text("Software", "NovelAI")
    info.add_text("Description", "a {cat}, night")
    info.add_text("Comment", comment)
    out = BytesIO()
    Image.new("RGB", (64, 96)).save(out, "PNG", pnginfo=info)
    with reopened(out.getvalue()) as image:
        return papers.text(image)


def test_a_picture_of_novelai_is_read():
    said = {"steps": 28, "sampler": "k_euler_ancestral", "seed": 7, "scale": 11.0, "uc": "bad: worse", "noise": 0.2}
    params = read(of_novelai(json.dumps(said))).params
    assert {name: params[name] for name in ("prompt", "negative_prompt", "sampler", "steps", "seed", "cfg_scale")} == {
        "prompt": "a {cat}, night", "negative_prompt": "bad: worse", "sampler": "Euler a", "steps": 28, "seed": 7,
        "cfg_scale": 11.0,
    }  # fmt: skip
    assert (params["width"], params["height"]) == (64, 96)


def test_what_a_picture_of_novelai_leaves_open_is_not_said():
    assert of_novelai('{"uc": null, "seed": null, "steps": 28}') == "a {cat}, night\nSteps: 28, Size: 64x96"


@pytest.mark.parametrize("comment", ["", "no JSON", "[]", "7", "[" * 100_000, '{"seed": ' + "9" * 9000 + "}"])
def test_a_comment_that_cannot_be_read_says_nothing(comment):
    assert of_novelai(comment) == ""


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_picture_without_papers_has_none(form):
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, form)
    with reopened(out.getvalue()) as image:
        assert papers.text(image) == ""
