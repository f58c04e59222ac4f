from __future__ import annotations

import pytest

from shared.errors import FarmError
from worker import cards
from worker.cards import Address

H200S = tuple(Address(f"cuda:{index}", f"GPU-{index}", "NVIDIA H200") for index in range(4))


def test_parse_reads_the_lines_of_nvidia_smi():
    listing = "0, GPU-0, NVIDIA H200\n1, GPU-1, NVIDIA H200\n"
    assert cards.parse(listing) == H200S[:2]


@pytest.mark.parametrize(
    ("gpus", "names"),
    [
        ("all", ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ("0,2", ["cuda:0", "cuda:2"]),
        ("cpu", ["cpu:0"]),
        ("cpu:2", ["cpu:0", "cpu:1"]),
    ],
)
def test_asked_names_a_card_for_each_worker(gpus, names):
    assert [card.name for card in cards.asked(gpus, H200S)] == names


def test_all_without_any_card_is_one_worker_on_the_cpu():
    assert [card.name for card in cards.asked("all", ())] == ["cpu:0"]


@pytest.mark.parametrize("gpus", ["7", "cpu:0", "cpu:x", "tpu", "", "0,,1"])
def test_asked_names_the_cards_there_are_when_it_cannot(gpus):
    with pytest.raises(FarmError, match=r"cuda:0, cuda:1, cuda:2, cuda:3"):
        cards.asked(gpus, H200S)


@pytest.mark.parametrize(("only", "left"), [("2,3", ["cuda:2", "cuda:3"]), ("GPU-1", ["cuda:1"]), ("", [])])
def test_present_leaves_out_what_cuda_visible_devices_hides(monkeypatch, tmp_path, only, left):
    program = tmp_path / "nvidia-smi"
    lines = "\\n".join(f"{card.name[5:]}, {card.uuid}, {card.label}" for card in H200S)
    program.write_text(f'#!/bin/sh\nprintf "{lines}\\n"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert [card.name for card in cards.present({"CUDA_VISIBLE_DEVICES": only})] == left


@pytest.mark.parametrize(("status", "refused"), [(6, False), (9, True)])
def test_cards_that_fail_are_not_taken_for_no_cards(monkeypatch, tmp_path, status, refused):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho 'No communication with the driver.' >&2\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    if refused:
        with pytest.raises(FarmError, match=r"status 9: No communication with the driver\. FARM_GPUS=cpu"):
            cards.present({})
    else:
        assert cards.present({}) == ()
