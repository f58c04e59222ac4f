"""Texts of other programs, as they stand in pictures: what becomes of them over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

PAGE = json.loads((Path(__file__).parents[1] / "data" / "texts.json").read_text())
ABSENT = object()


def saved(form: str, size: tuple[int, int] = (64, 64), **options: Any) -> bytes:
    out = BytesIO()
    Image.new("RGB", size).save(out, form, **options)
    return out.getvalue()


def png(case: dict[str, Any], add: Callable[[PngInfo, str], None]) -> bytes:
    info = PngInfo()
    add(info, case.get("text", ""))
    return saved("PNG", tuple(case.get("picture_size", (64, 64))), pnginfo=info)


def with_chunks(case: dict[str, Any]) -> bytes:
    info = PngInfo()
    for name, text in case["chunks"].items():
        info.add_itxt(name, text)
    return saved("PNG", tuple(case.get("picture_size", (64, 64))), pnginfo=info)


def with_first_directory(case: dict[str, Any]) -> bytes:
    block = Image.Exif()
    block[ExifTags.Base.UserComment] = b"UNICODE\x00" + case["text"].encode("utf-16-be")
    return saved("JPEG", exif=block.tobytes())


CARRIERS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "png-iTXt": lambda case: png(case, lambda info, text: info.add_itxt("parameters", text)),
    "png-tEXt-utf8": lambda case: png(case, lambda info, text: info.add(b"tEXt", b"parameters\x00" + text.encode())),
    "png-chunks": with_chunks,
    "jpeg-ifd0-byte-utf16": with_first_directory,
    "jpeg-com": lambda case: saved("JPEG", comment=case["text"].encode()),
}


@pytest.fixture
def ask(client, checkpoint_factory):
    """Sends a picture to a farm that holds two checkpoints, and returns what was read."""
    checkpoint_factory("scenes-v1", native_size=64)
    checkpoint_factory("scenes-pixel-v1", native_size=64, sha256="70fdb79967" + "0" * 54)

    def send(data: bytes) -> Any:
        return client.post("/api/v1/png-info", data=data, content_type="image/png").get_json()

    return send


def value(params: Any, path: str) -> Any:
    for name in path.split("."):
        params = params.get(name, ABSENT) if isinstance(params, dict) else ABSENT
    return params


@pytest.mark.parametrize("case", PAGE["cases"], ids=lambda case: case["id"])
def test_a_text_of_another_program_is_read_right(client, ask, case):
    answer = ask(CARRIERS[case["carrier"]](case))
    params, left_out = answer["params"], " ".join(answer["left_out"])
    assert {path: value(params, path) for path in case["right"]} == case["right"]
    assert all(note in left_out for note in case.get("noted", []))
    if "not_prompt" in case:
        assert case["not_prompt"] not in params.get("prompt", "")
    assert client.post("/api/v1/jobs", json=params).status_code == 202


def asked(text: str) -> bytes:
    return png({"text": text}, lambda info, text: info.add_itxt("parameters", text))


@pytest.mark.parametrize("short_hash", ["70FDB79967", "70fdb7996700", "70fdb79967" + "0" * 54, "0x70fdb79967"])
def test_a_hash_is_known_in_every_length_and_case(ask, short_hash):
    answer = ask(asked(f"a cat\nSteps: 12, Seed: 17, Size: 64x64, RNG: CPU, Model hash: {short_hash}, Model: other"))
    assert answer["params"]["checkpoint"] == "scenes-pixel-v1 [70fdb79967]"
    assert answer["left_out"] == []


@pytest.mark.parametrize(
    "model", ["scenes-pixel-v1", "SCENES-PIXEL-V1", "scenes-pixel-v1.safetensors", "sd15\\scenes-pixel-v1.ckpt"]
)
@pytest.mark.parametrize(("model_hash", "told"), [("deadbeef00", "deadbeef00"), ("deadbeef", "deadbeef"), ("", "")])
def test_a_name_counts_where_the_hash_is_nobodys(ask, model, model_hash, told):
    hashed = f"Model hash: {model_hash}, " if model_hash else ""
    answer = ask(asked(f"a cat\nSteps: 12, Seed: 17, Size: 64x64, RNG: CPU, {hashed}Model: {model}"))
    assert answer["params"]["checkpoint"] == "scenes-pixel-v1 [70fdb79967]"
    assert told in " ".join(answer["left_out"])
    assert len(answer["left_out"]) == bool(told)


def test_a_checkpoint_that_is_not_here_is_told_by_its_name(ask):
    answer = ask(asked("a cat\nSteps: 12, Seed: 17, Size: 64x64, Model hash: deadbeef00, Model: photo-v9"))
    assert "checkpoint" not in answer["params"]
    assert "photo-v9" in " ".join(answer["left_out"])
