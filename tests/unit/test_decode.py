"""Pictures that people send: what comes in, what goes out, and what is refused with which reason."""

from __future__ import annotations

import base64
import os
import signal
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import BytesIO
from threading import Event

import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from shared.confined.process import Confined
from shared.errors import Refused, TooLarge, Unavailable, Unreadable
from shared.media import decode as module
from shared.media.control_question import ControlQuestion
from shared.media.decode import Picture, PictureReader
from shared.media.decoder import Answer
from shared.media.fair_limit import Share
from shared.params.controlnet import ControlUnit
from shared.settings import Limits
from tests.support.waiting import until

SMALL = Limits(max_upload_mb=1, max_upload_megapixels=1)
READER = PictureReader(SMALL)  # its children start with the first question
PREVIEW = ControlQuestion(ControlUnit(model="any"), (64, 64), None, {})


def drawn(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    """A picture whose left upper corner is dark and whose others are light."""
    picture = Image.new("L", size, 200)
    ImageDraw.Draw(picture).rectangle((0, 0, 7, 7), fill=20)
    return picture.convert(mode)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    READER.close()


def taken(data: bytes, field: str = "file") -> Picture:
    return READER.read(data, field, "ann")


def read(data: bytes) -> Image.Image:
    """The stored form, decoded."""
    stored = taken(data)
    picture = Image.open(BytesIO(stored.png))
    assert picture.format == "PNG"
    assert picture.size == (stored.width, stored.height)
    return picture


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, data: bytes, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_every_kind_becomes_the_same_picture(kind):
    stored = read(encoded(drawn(), kind)).convert("L")
    assert stored.getpixel((2, 2)) == pytest.approx(20, abs=6)
    assert stored.getpixel((20, 12)) == pytest.approx(200, abs=6)


@pytest.mark.parametrize(
    ("mode", "stored"),
    [("1", "L"), ("L", "L"), ("LA", "RGBA"), ("P", "RGB"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("I;16", "L")],
)
def test_modes_become_grey_or_colours_of_eight_bits(mode, stored):
    assert read(encoded(drawn(mode) if mode != "I;16" else sixteen_bits())).mode == stored


def sixteen_bits() -> Image.Image:
    return Image.frombytes("I;16", (2, 2), struct.pack("<4H", 0, 0x8080, 0x4040, 0xFFFF))


def test_sixteen_bits_are_scaled_not_cut():
    assert list(read(encoded(sixteen_bits())).tobytes()) == [0, 128, 64, 255]


def test_cmyk_becomes_colours():
    assert read(encoded(drawn("CMYK"), "JPEG")).mode == "RGB"


def test_transparency_is_kept_also_that_of_a_palette():
    palette = drawn("P")
    assert read(encoded(palette, transparency=palette.getpixel((0, 0)))).getpixel((0, 0))[3] == 0
    assert read(encoded(drawn("RGBA"), "WEBP", lossless=True)).mode in {"RGB", "RGBA"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_is_turned_as_its_exif_says(orientation):
    corners = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = read(encoded(drawn(), "JPEG", exif=exif, quality=95)).convert("L")
    assert upright.size == ((24, 16) if orientation < 5 else (16, 24))
    right, bottom = upright.width - 1, upright.height - 1
    seen = {(x, y): upright.getpixel((x * right, y * bottom)) for x in (0, 1) for y in (0, 1)}
    assert [corner for corner, light in seen.items() if light < 100] == [corners[orientation]]


def test_metadata_is_dropped():
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a secret prompt")
    info.add_itxt("comment", "where I live")
    exif = Image.Exif()
    exif[0x010E] = "my name"
    data = encoded(drawn(), pnginfo=info, exif=exif, icc_profile=b"a profile", dpi=(72, 72))
    stored = taken(data).png
    assert [kind for kind in (b"tEXt", b"iTXt", b"eXIf", b"iCCP", b"pHYs", b"zTXt") if kind in stored] == []


def test_same_pixels_are_the_same_upload_whatever_the_file():
    one, other = (taken(encoded(drawn(), kind)) for kind in ("PNG", "BMP"))
    assert one.sha256 == other.sha256
    assert len(one.sha256) == 64


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_picture_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    red, _, blue = read(data).convert("RGB").getpixel((4, 4))
    assert red > 200
    assert blue < 60


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it has 900 million pixels."""
    return png_of(30_000, 30_000, zlib.compress(b"\0" * 10_000))


def liar() -> bytes:
    """A PNG whose data unpacks to far more than its header says."""
    return png_of(8, 8, zlib.compress(b"\0" * 5_000_000))


def scanned(times: int) -> bytes:
    """A progressive JPEG whose last scan, of some twenty bytes, comes so many times more."""
    whole = encoded(drawn(), "JPEG", progressive=True)
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * times + b"\xff\xd9"


def bmp_of_runs() -> bytes:
    """A BMP of few bytes that says it has a million pixels, in runs of none."""
    rows = b"\x01\0\0\0" * 1000
    palette = bytes(1024)
    info = struct.pack("<IiiHHIIiiII", 40, 1000, 1000, 1, 8, 1, len(rows), 0, 0, 256, 0)
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + info + palette + rows


HOSTILE = {
    "empty": (b"", "is empty"),
    "text": (b"hello there", "is not a picture"),
    "zip": (b"PK\x03\x04" + b"\0" * 100, "is a zip archive"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 100, "is a gzip archive"),
    "pdf": (b"%PDF-1.7\n", "is a PDF"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "is SVG, HTML or XML"),
    "html": (b"\n <!DOCTYPE html>", "is SVG, HTML or XML"),
    "tiff": (encoded(drawn(), "TIFF"), "is a TIFF"),
    "avif": (b"\0\0\0\x1cftypavif" + b"\0" * 40, "is HEIC, AVIF or a video"),
    "program": (b"\x7fELF" + b"\0" * 60, "is a program"),
    "pickle": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "is not a picture"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is not a picture"),
    "magic alone": (b"\x89PNG\r\n\x1a\n", "not a picture"),
    "png of no pixels": (png_of(0, 8, zlib.compress(b"")), ""),
    "png cut": (encoded(drawn())[:60], "is damaged or cut off"),
    "jpeg cut in its head": (encoded(drawn(), "JPEG")[:300], "is damaged or cut off"),
    "jpeg of noise": (encoded(drawn(), "JPEG")[:200] + bytes(range(256)), ""),
    "webp cut": (encoded(drawn(), "WEBP")[:40], ""),
    "jpeg of endless scans": (scanned(1000), "more parts"),
    "jpeg of endless segments": (b"\xff\xd8" + b"\xff\xe5\x00\x02" * 20_000, "more parts"),
    "jpeg of endless padding": (encoded(drawn(), "JPEG")[:2] + b"\xff" * 500_000, "more padding"),
    "png of endless chunks": (png_of(8, 8, zlib.compress(b"\0" * 200), chunk(b"prVt", b"") * 20_000), "more parts"),
    "gif of endless comments": (b"GIF89a\x08\0\x08\0\0\0\0" + b"!\xfe\x01a\0" * 20_000, "more parts"),
    "gif of a comment in endless blocks": (b"GIF89a\x08\0\x08\0\0\0\0!\xfe" + b"\x01a" * 20_000, "more parts"),
    "bmp in runs": (bmp_of_runs(), "run-length encoded BMP"),
    "gif cut": (encoded(drawn(), "GIF")[:30], ""),
    "bmp cut": (encoded(drawn(), "BMP")[:60], "is damaged or cut off"),
    "wrong checksum": (encoded(drawn())[:41] + b"zzzz" + encoded(drawn())[45:], "is damaged or cut off"),
    "bomb": (bomb(), "pixels"),
    "long": (encoded(Image.new("L", (1000, 10))), "more than 16 times as long as wide"),
    "large": (encoded(Image.new("L", (1001, 1000))), "has 1001x1000 pixels"),
    "texts that unpack": (
        png_of(8, 8, zlib.compress(b"\0" * 200), chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 5_000_000))),
        "is damaged or cut off",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_whole_picture_is_refused_with_the_reason(name):
    data, reason = HOSTILE[name]
    with pytest.raises(Refused) as caught:
        taken(data, "img2img.picture")
    (field,) = caught.value.fields
    assert field.field == "img2img.picture"
    assert reason in field.message
    assert len(field.message) < 200
    assert field.accepted == "a PNG, JPEG, WebP, BMP or GIF of at most 1 MB and 1 megapixels"


def test_png_that_unpacks_to_more_than_it_says_costs_no_more_than_it_says():
    assert read(liar()).size == (8, 8)


@pytest.mark.parametrize(
    "data",
    [
        encoded(drawn(), "JPEG", progressive=True),
        encoded(drawn(), "JPEG", restart_marker_blocks=1),
        encoded(drawn(), "JPEG", comment=b"\xff\xda" * 1000),
        encoded(drawn(), "JPEG") + b"\xff\xda" * 1000,
        scanned(20),
    ],
    ids=["progressive", "restarts", "scans in a comment", "scans behind the end", "some scans more"],
)
def test_jpeg_of_few_scans_is_read(data):
    assert read(data).size == (24, 16)


def test_every_cut_of_a_file_is_refused_or_read_never_a_failure():
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        data = encoded(drawn(), kind)
        for end in range(0, len(data), 7):
            try:
                taken(data[:end])
            except Refused:
                continue


def test_file_over_the_limit_is_too_large_before_it_is_opened():
    with pytest.raises(TooLarge) as caught:
        taken(b"\x89PNG" + b"\0" * 2**20)
    assert caught.value.fields[0].message == "is 1,048,580 bytes large"


def test_data_url_is_read():
    url = f"data:image/png;base64,{base64.b64encode(encoded(drawn())).decode()}"
    assert READER.read_url(url, "img2img.picture", "ann").width == 24


@pytest.mark.parametrize(
    "change",
    [
        str,
        lambda url: url.replace("data:image/png;base64", "DATA:Image/PNG;BASE64"),
        lambda url: "\n ".join(url[start : start + 76] for start in range(0, len(url), 76)),
        lambda url: f"  {url}\r\n",
        lambda url: url.replace(";base64,", ';charset=utf-8;name="a b (1).png"; base64 ,'),
        lambda url: url.rstrip("="),
        lambda url: url.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D").replace("image%2F", "image/"),
        lambda url: url.replace("image/png", ""),
    ],
    ids=["as it is", "capitals", "lines", "blanks around", "a name", "no padding", "percents", "no kind"],
)
def test_data_url_is_read_as_browsers_read_it(change):
    url = f"data:image/png;base64,{base64.b64encode(encoded(drawn(size=(25, 17)))).decode()}"
    assert READER.read_url(change(url), "img2img.picture", "ann").width == 25


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("data:", "without base64"),
        ("data:image/png,abc", "without base64"),
        ("data:image/svg+xml;utf8,<svg/>", "without base64"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png;base64,!!!!", "base64 is damaged"),
        ("data:image/png;base64,abcde", "base64 is damaged"),
        ("data:image/png;base64,\ud83d\ude00", "base64 is damaged"),
        ("data:text/html;base64,PGh0bWw+", "is SVG, HTML or XML"),
        ("data:" + "x" * 10_000 + ";base64,", "without base64"),
    ],
)
def test_damaged_data_url_is_refused(url, reason):
    with pytest.raises(Refused) as caught:
        READER.read_url(url, "img2img.mask.picture", "ann")
    assert reason in caught.value.fields[0].message


@pytest.mark.parametrize("missing", [1, 2, 3, 10, 60])
def test_jpeg_that_lacks_its_last_bytes_is_taken_as_browsers_do(missing):
    whole = encoded(drawn(size=(128, 96)), "JPEG", quality=95)
    stored = read(whole[:-missing]).convert("L")
    assert stored.size == (128, 96)
    assert stored.getpixel((2, 2)) == pytest.approx(20, abs=6)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"pHYs", b"prVt"])
def test_png_whose_checksum_is_wrong_where_no_pixels_are_is_taken(kind):
    wrong = struct.pack(">I", 9) + kind + b"a\0\0\0\0\0\0\0\0" + b"zzzz"
    whole = encoded(drawn())
    assert read(whole[:33] + wrong + whole[33:]).size == (24, 16)


def test_text_of_a_png_whose_checksum_is_wrong_is_read():
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a lake\nSteps: 4")
    whole = encoded(drawn(), pnginfo=info)
    end = whole.index(b"a lake") + len(b"a lake\nSteps: 4")
    assert READER.text(whole[:end] + b"zzzz" + whole[end + 4 :], "file", "ann") == "a lake\nSteps: 4"


def test_file_that_takes_too_long_is_refused_and_the_next_one_read(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS", 0.05)
    picture_reader = PictureReader(Limits())
    try:
        with pytest.raises(Refused, match=r"longer than 0\.05 s"):
            picture_reader.read(encoded(Image.new("RGB", (5000, 5000)), compress_level=1), "file", "ann")
        monkeypatch.undo()
        assert picture_reader.read(encoded(drawn(size=(2, 2))), "file", "ann").width == 2
    finally:
        picture_reader.close()


def test_decoder_that_was_ended_is_not_held_against_the_picture():
    assert read(encoded(drawn())).size == (24, 16)
    idle = READER._decoders.idle.queue[-1]
    os.killpg(idle._child.pid, signal.SIGKILL)
    until(lambda: idle._child.poll() is not None)
    assert read(encoded(drawn())).size == (24, 16)


def test_decoder_that_is_ended_at_its_work_is_asked_once_more(monkeypatch):
    answers = [Unreadable("it ended its process (SIGKILL)"), None]

    def ask(child: Confined, question: bytes) -> bytes:
        if error := answers.pop(0):
            raise error
        return whole(child, question)

    whole = Confined.ask
    monkeypatch.setattr(Confined, "ask", ask)
    assert read(encoded(drawn())).size == (24, 16)
    answers[:] = [Unreadable("it ended its process (SIGSEGV)")] * 2
    with pytest.raises(Refused, match="SIGSEGV"):
        taken(encoded(drawn()))


def test_previews_of_control_pictures_keep_nobody_from_sending_a_picture(monkeypatch):
    """Those of one person fill their own limit: one is prepared, the others wait, and the next one is refused."""
    monkeypatch.setattr(module, "_PREVIEWS", Share(at_once=1, most=2))
    begun, go_on = Event(), Event()
    whole = Confined.ask

    def ask(child: Confined, question: bytes) -> bytes:
        if question != PREVIEW.packed():
            return whole(child, question)
        begun.set()
        assert go_on.wait(30)
        return Answer(data=b"a preview").packed()

    def preview() -> bytes:
        return picture_reader.control(PREVIEW, "controlnet.0.picture", "ann")

    monkeypatch.setattr(Confined, "ask", ask)
    with closing(PictureReader(Limits())) as picture_reader, ThreadPoolExecutor() as threads:
        try:
            both = [threads.submit(preview) for _ in range(2)]
            assert begun.wait(30)
            until(lambda: picture_reader._previewers.limit._inside["ann"] == 2)
            with pytest.raises(Unavailable, match="control pictures are being prepared"):
                preview()
            assert picture_reader.read(encoded(drawn()), "file", "ann").width == 24
        finally:
            go_on.set()
        assert [one.result(30) for one in both] == [b"a preview"] * 2
