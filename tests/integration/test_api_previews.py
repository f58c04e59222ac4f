"""The picture beside a model file: on the page of the models and over the API, small, whatever lies there."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from shared.media.decoder import THUMBNAIL
from shared.models import previews
from shared.models.folders import ModelFolders
from tests.support.browsing import look

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (600, 300), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[colour]).save(path, **options)
    return path


@pytest.fixture
def file(settings, checkpoint_factory):
    """A checkpoint in the models folder."""
    (settings.models / "deep").mkdir()
    (settings.models / "deep" / "sea.v1.safetensors").touch()
    return checkpoint_factory("sea.v1", path="deep/sea.v1.safetensors")


@pytest.fixture
def address(file) -> str:
    return f"/api/v1/models/{file.sha256}/preview.webp"


def shown(answer) -> Image.Image:
    assert (answer.status_code, answer.mimetype) == (200, "image/webp")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    return Image.open(io.BytesIO(answer.data))


def colour(found: Image.Image) -> str:
    pixel = found.convert("RGB").getpixel((5, 5))
    return min(COLOURS, key=lambda name: sum(abs(a - b) for a, b in zip(COLOURS[name], pixel, strict=True)))


def test_a_picture_beside_a_file_is_shown_small_under_each_of_its_names(client, settings, address):
    secret = {"exif": Image.Exif()}
    secret["exif"][0x010E] = "a secret prompt"
    for name in (f"sea.v1{infix}.{ending}" for infix in ("", ".preview") for ending in ("png", "jpg", "jpeg", "webp")):
        path = picture(settings.models / "deep" / name, **secret)
        answer = client.get(address)
        assert shown(answer).size == (THUMBNAIL, THUMBNAIL // 2), name
        assert b"secret" in path.read_bytes()
        assert b"secret" not in answer.data
        path.unlink()
    picture(path)
    assert len(look(client, "/models").all("img", src=address)) == 1


def test_a_preview_goes_before_another_picture_and_a_changed_one_is_shown_at_once(client, settings, address):
    picture(settings.models / "deep/sea.v1.png", "blue")
    assert colour(shown(client.get(address))) == "blue"
    path = picture(settings.models / "deep/sea.v1.preview.png", "red")
    answer = client.get(address)
    assert colour(shown(answer)) == "red"
    tag = answer.headers["ETag"]
    assert client.get(address, headers={"If-None-Match": tag}).status_code == 304
    picture(path, "blue")
    os.utime(path, (1, 1))
    assert colour(shown(client.get(address, headers={"If-None-Match": tag}))) == "blue"


def test_a_file_without_a_picture_has_none_and_nothing_else_is_reached(client, settings, address):
    picture(settings.models / "deep/sea.png")
    picture(settings.models / "sea.v1.png")
    for asked in (address, f"/api/v1/models/{'0' * 64}/preview.webp"):
        answer = client.get(asked)
        assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")
    assert not look(client, "/models").all("img", src=address)


def bomb() -> bytes:
    """Return a PNG whose header says 50,000 x 50,000 pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def test_what_is_not_a_picture_is_not_served(client, settings, address):
    for data, words in (
        (b"<svg onload=alert(1)>", "SVG"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"", "is empty"),
        (bomb(), "pixels"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "cannot be shown"),
    ):
        (settings.models / "deep/sea.v1.png").write_bytes(data)
        answer = client.get(address)
        assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")
        assert words in answer.get_json()["detail"]


def test_pipes_and_files_that_are_too_large_are_not_read(client, settings, address, tmp_path):
    path = settings.models / "deep/sea.v1.png"
    os.mkfifo(path)
    assert "is a pipe" in client.get(address).get_json()["detail"]
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is a device" in client.get(address).get_json()["detail"]
    path.unlink()
    path.touch()
    os.truncate(path, previews.MOST_BYTES + 1)
    assert "larger than 16 MiB" in client.get(address).get_json()["detail"]
    path.unlink()
    path.symlink_to(picture(tmp_path / "elsewhere.png"))
    assert shown(client.get(address))


def test_pictures_are_those_of_the_folder_that_has_the_file(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one / "a.ckpt", two / "a.ckpt", two / "b.ckpt", two / "folder.v2" / "model_index.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    of_a, of_b, of_folder = (picture(two / f"{name}.png") for name in ("a", "b", "folder.v2"))
    names = ["a.ckpt", str(two / "a.ckpt"), "b.ckpt", "folder.v2", "gone.ckpt", "/etc/passwd"]
    found = previews.paths(ModelFolders((one, two, tmp_path / "away")), names)
    assert found == {str(two / "a.ckpt"): of_a, "b.ckpt": of_b, "folder.v2": of_folder}
