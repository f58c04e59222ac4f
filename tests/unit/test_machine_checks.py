"""What `farm doctor` says of cards and PyTorch."""

from __future__ import annotations

import pytest

from api.cli import machine_checks

WHY = "PyTorch 2.13.0+cpu is a build without CUDA: install one with it (README, Which PyTorch, says how)"


@pytest.fixture
def torch_says(monkeypatch, tmp_path):
    def says(answer: object, *, has_driver: bool = False) -> None:
        monkeypatch.setattr(machine_checks, "_ask_torch", lambda: answer)
        monkeypatch.setattr(machine_checks, "_CONTROL", tmp_path if has_driver else tmp_path / "nvidiactl")

    return says


def test_a_card_that_pytorch_does_not_see_is_told_with_the_reason(torch_says):
    torch_says({"cards": [], "why": WHY}, has_driver=True)
    found = machine_checks.cards(None)
    assert found.level == "bad"
    assert found.text == f"There is an NVIDIA driver, but PyTorch sees no card: {WHY}."
    assert "FARM_GPUS=cpu" in found.advice


def test_a_machine_without_a_driver_renders_on_the_cpu(torch_says):
    torch_says({"cards": [], "why": WHY})
    assert machine_checks.cards(None).level == "note"


def test_cards_that_pytorch_sees_are_named(torch_says):
    torch_says({"cards": ["NVIDIA H200", "NVIDIA H100"], "why": ""}, has_driver=True)
    assert machine_checks.cards(None).text == "NVIDIA H200, NVIDIA H100"


def test_pytorch_is_asked_for_its_reason():
    answer = machine_checks._ask_torch()
    assert isinstance(answer, dict), answer
    assert bool(answer["cards"]) is not bool(answer["why"])
