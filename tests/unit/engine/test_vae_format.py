"""The number format of VAEs: never float16 on a guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.card_ledger import Ledger
from worker.engine.architectures.parts import Part
from worker.engine.devices import Device
from worker.engine.loading import layouts, load, vae_format

CARD = Device("cuda:0", "cuda", "a card", 8 * 2**30)
Small = Callable[[str], Path]


@pytest.fixture
def part(small_file: Small) -> Part:
    """The VAE of a single file, which says nothing about its precision."""
    return layouts.read(small_file("sdxl")).networks["vae"]


@pytest.fixture
def old_card(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A card without bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation=True: including_emulation)
    return CARD


def louder(part: Part, factor: float) -> Part:
    """Return a VAE whose numbers are larger inside, and whose pictures are the same: a norm follows."""
    name = "decoder.conv_in.weight"
    return replace(part, weights={**part.weights, name: part.weights[name] * factor})


def test_a_known_picture_measures_whether_a_vae_holds_in_float16(part: Part, old_card: Device) -> None:
    quiet, loud = vae_format.largest_number(part), vae_format.largest_number(louder(part, 1e6))
    assert 1 < quiet < vae_format.LARGEST < 65_504 < loud
    assert vae_format.vae_dtype(part, old_card, torch.float16) == torch.float16
    assert vae_format.vae_dtype(louder(part, 1e6), old_card, torch.float16) == torch.float32
    assert vae_format.vae_dtype(louder(part, float("nan")), old_card, torch.float16) == torch.float32


def test_a_folder_says_whether_its_vae_holds_in_float16(part: Part, old_card: Device) -> None:
    for stated, loudness, expected in ((False, 1e6, torch.float16), (True, 1.0, torch.float32)):
        said = louder(replace(part, config=part.config | {"force_upcast": stated}), loudness)
        assert vae_format.vae_dtype(said, old_card, torch.float16) == expected


def test_nothing_is_measured_where_another_format_is_better(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_format, "largest_number", lambda _: pytest.fail("measured"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert vae_format.vae_dtype(part, CARD, torch.float16) == torch.bfloat16
    assert vae_format.vae_dtype(part, CARD, torch.float32) == torch.float32
    assert vae_format.vae_dtype(part, Device("cpu:0", "cpu", "a CPU", 0), torch.bfloat16) == torch.float32


def test_a_card_gets_a_vae_that_holds_in_float16_in_that_format(
    pretended: Ledger, old_card: Device, small_file: Small, tmp_path: Path
) -> None:
    path = small_file("sdxl")
    assert not load.load(path, old_card, torch.float16).has_precise_vae
    weights = load_file(path)
    weights["first_stage_model.decoder.conv_in.weight"] = (
        weights["first_stage_model.decoder.conv_in.weight"].float() * 1e6
    )
    save_file(weights, tmp_path / "loud.safetensors")
    assert load.load(tmp_path / "loud.safetensors", old_card, torch.float16).has_precise_vae
