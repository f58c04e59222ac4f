"""What `farm doctor` says about cards and PyTorch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cli import machine_checks
from shared import row_limit_files
from shared.row_limit_files import Processor, StoredLimit
from tests.support.nvidia import pretend
from worker import machine
from worker.engine import devices
from worker.supervisor import nvidia_smi

ONE = "0, GPU-8932f937, NVIDIA H200\n"
LOST = "Unable to determine the device handle for gpu 0000:3B:00.0: Unknown Error"


@pytest.fixture
def found(monkeypatch):
    """What the check finds where FARM_GPUS, nvidia-smi and PyTorch say these things; the process asked is this one."""

    def found(gpus: str = "all", why: str = ""):
        monkeypatch.setattr(devices, "why_no_card", lambda: why)
        monkeypatch.setattr(machine_checks, "_ask_machine", machine.facts)
        return machine_checks.cards(SimpleNamespace(gpus=gpus))

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return found


def test_cards_that_workers_serve_are_named(found, monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, ONE + "1, GPU-5d5b, NVIDIA L4\n")
    assert found().text == "cuda:0 NVIDIA H200, cuda:1 NVIDIA L4"
    assert found("1").text == "cuda:1 NVIDIA L4"


def test_cards_that_pytorch_cannot_use_are_told_with_the_reason(found, monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, ONE)
    told = found(why="the NVIDIA driver is too old")
    assert (told.level, told.text) == (
        "bad",
        "cuda:0 NVIDIA H200, but PyTorch can use none: the NVIDIA driver is too old.",
    )


def test_a_card_that_is_lost_is_told_beside_the_others(found, monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, ONE, LOST, status=15)
    assert (found().level, found().text) == ("bad", f"cuda:0 NVIDIA H200, and of others nvidia-smi says: {LOST}")


def test_a_name_of_no_card_is_told_as_it_ends_the_start(found, monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, ONE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert found().level == "bad"
    assert found().text.startswith(
        "CUDA_VISIBLE_DEVICES=3 names '3', which is not a card here. This machine has cuda:0"
    )


def test_a_machine_without_cards_renders_on_the_cpu(found, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nvidia_smi, "_CONTROL", tmp_path / "nvidiactl")
    assert found().text.startswith("No card; the farm renders on the CPU")


def test_cards_that_are_not_asked_for_are_not_looked_at(found, monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, LOST, LOST, status=15)
    assert found("cpu:2").level == "note"


def test_another_process_is_asked():
    answer = machine_checks._ask_machine("cpu")
    assert isinstance(answer, dict), answer
    assert machine_checks.torch(SimpleNamespace(gpus="cpu")).text.startswith(answer["version"])


def test_what_was_measured_of_a_processor_is_told(tmp_path):
    settings = SimpleNamespace(home=tmp_path)
    told = machine_checks.portions(settings)
    assert (told.level, told.text) == (
        "fine",
        "Not measured yet: a worker on the CPU measures them at its first picture.",
    )
    processor = Processor("AMD EPYC", 2, "2.13.0+cpu")
    known = {"linear": StoredLimit(16, is_lone_alike=False), "convolution": StoredLimit(15, is_final=True)}
    row_limit_files.write(row_limit_files.path(tmp_path, processor), processor, known)
    (row_limit_files.folder(tmp_path) / "damaged.jsonl").write_text("{")
    assert machine_checks.portions(settings).text == (
        "AMD EPYC, 2 threads, PyTorch 2.13.0+cpu: a call takes up to 16 rows"
        " (2 shapes of layers measured, 1 of them fewer, 15 at least)"
    )
