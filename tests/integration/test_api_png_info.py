"""What a picture's file says about itself, over HTTP."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from shared.infotext.writer import text
from shared.params.render import RenderParams
from worker.encode import picture

PIXELS = np.random.default_rng(7).integers(0, 256, (64, 64, 3), dtype=np.uint8)
FOREIGN = """a cat
Negative prompt: bad
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.0, Seed: 43, Face restoration: CodeFormer, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, RNG: CPU, Version: v1.5.1"""


@pytest.fixture
def ask(client):
    """Sends a file in a form, and returns the answer."""

    def send(data: bytes, name: str = "a.png") -> Any:
        return client.post("/api/v1/png-info", data={"file": (BytesIO(data), name)})

    return send


@pytest.fixture
def checkpoint(checkpoint_factory):
    return checkpoint_factory("demo", native_size=64)


@pytest.fixture
def job(client, checkpoint):
    """A job as it was admitted."""
    asked = {"prompt": "a lake\nat dawn", "sampler": "DPM++ 2M", "schedule": "karras", "seed": 7, "clip_skip": 2}
    return client.post("/api/v1/jobs", json=asked).get_json()


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_picture_of_the_farm_can_be_asked_for_again(client, ask, job, form):
    params = RenderParams.from_stored(job["params"]).model_copy(update={"format": form})
    written = text(params, version="1")
    answer = ask(picture(PIXELS, written, form)).get_json()
    assert answer["text"] == written
    assert answer["left_out"] == []
    again = client.post("/api/v1/jobs", json=answer["params"]).get_json()
    assert RenderParams.from_stored(again["params"]) == params


def test_a_picture_of_another_program_is_read_as_far_as_it_goes(client, ask, checkpoint):
    answer = ask(picture(PIXELS, FOREIGN, "png")).get_json()
    assert answer["text"] == FOREIGN
    assert answer["params"]["schedule"] == "karras"
    assert "checkpoint" not in answer["params"]
    assert answer["left_out"][0] == "Face restoration: CodeFormer"
    assert "v1-5-pruned-emaonly" in answer["left_out"][1]
    assert client.post("/api/v1/jobs", json=answer["params"]).status_code == 202


def test_a_source_that_nobody_uploaded_is_left_out(ask, job):
    painted = RenderParams.from_stored(job["params"] | {"img2img": {"picture": "a" * 64}})
    answer = ask(picture(PIXELS, text(painted, version="1"), "png")).get_json()
    assert "img2img" not in answer["params"]
    assert answer["left_out"][0].startswith("img2img.picture: ")


def test_a_farm_without_checkpoints_still_reads(ask):
    answer = ask(picture(PIXELS, FOREIGN, "png")).get_json()
    assert answer["params"]["seed"] == 43


def test_the_file_may_be_the_body(client):
    answer = client.post("/api/v1/png-info", data=picture(PIXELS, FOREIGN, "webp"), content_type="image/webp")
    assert answer.get_json()["text"] == FOREIGN


def test_a_picture_without_parameters_has_none(ask):
    assert ask(picture(PIXELS, "", "jpeg")).get_json() == {"text": "", "params": {}, "left_out": []}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that claims a size, whatever is in it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


WHOLE = picture(PIXELS, FOREIGN, "png")
BOMB = zlib.compress(bytes(100_000_000))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"a cat", "is not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"PK\x03\x04" + bytes(100), "zip"),
        (WHOLE[:40], "is not a picture"),
        (WHOLE[: len(WHOLE) // 2], "damaged"),
        (picture(PIXELS, FOREIGN, "jpeg")[:700], "damaged"),
        (picture(PIXELS, FOREIGN, "webp")[:700], ""),
        (png(20_000, 20_000, chunk(b"IDAT", BOMB)), "pixels"),
        (png(8, 8, chunk(b"zTXt", b"parameters\x00\x00" + BOMB)), ""),
        (png(8, 8, chunk(b"iTXt", b"parameters\x00\x01\x00\x00\x00" + BOMB)), ""),
        (png(8, 8), "damaged"),
    ],
    ids=range(12),
)
def test_a_bad_file_is_refused_by_its_name(ask, data, told):
    answer = ask(data)
    assert answer.status_code == 422, answer.get_json()
    [error] = answer.get_json()["errors"]
    assert error["field"] == "file"
    assert told in error["message"]
    assert "PNG" in error["accepted"]


def test_a_form_without_a_file_is_refused(client):
    answer = client.post("/api/v1/png-info", data={"picture": "a"}, content_type="multipart/form-data")
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"] == "file"


def test_looking_submits_nothing(client, ask, checkpoint):
    ask(WHOLE)
    assert client.get("/api/v1/jobs").get_json()["jobs"] == []
