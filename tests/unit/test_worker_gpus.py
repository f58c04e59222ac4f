from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from types import SimpleNamespace

import pytest

from shared.errors import FarmError
from tests.support.nvidia import pretend
from tests.support.waiting import until
from worker import __main__ as command
from worker.supervisor import gpus as cards
from worker.supervisor import nvidia_smi
from worker.supervisor.gpus import Address, Present

H200S = Present(tuple(Address(f"cuda:{index}", f"GPU-{index}", "NVIDIA H200") for index in range(4)))
A100 = "NVIDIA A100-SXM4-40GB"
FIRST, SECOND = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77"
MIGS = ("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb")
LIST = f"""\
GPU 0: {A100} (UUID: {FIRST})
  MIG 3g.20gb     Device  0: (UUID: {MIGS[0]})
  MIG 3g.20gb     Device  1: (UUID: {MIGS[1]})
GPU 1: {A100} (UUID: {SECOND})
"""
QUERY = f"0, {FIRST}, {A100}\n1, {SECOND}, {A100}\n"
LOST = "Unable to determine the device handle for gpu 0000:3B:00.0: Unknown Error"


@pytest.fixture
def nvidia(monkeypatch, tmp_path):
    """Puts a pretended nvidia-smi on PATH."""
    return partial(pretend, monkeypatch, tmp_path)


def names(there: Present) -> list[str]:
    return [card.name for card in there.cards]


def test_parse_reads_the_lines_of_nvidia_smi():
    found, strays = nvidia_smi.parse(["0, GPU-0, NVIDIA H200", "1, GPU-1, NVIDIA H200, as they say"])
    assert [(card.number, card.uuid, card.label) for card in found] == [
        ("0", "GPU-0", "NVIDIA H200"),
        ("1", "GPU-1", "NVIDIA H200, as they say"),
    ]
    assert strays == []


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ("all", ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ("0,2", ["cuda:0", "cuda:2"]),
        ("2, 0,2", ["cuda:2", "cuda:0"]),
        ("GPU-1,cuda:3", ["cuda:1", "cuda:3"]),
        ("cpu", ["cpu:0"]),
        ("cpu:2", ["cpu:0", "cpu:1"]),
    ],
)
def test_asked_names_a_card_for_each_worker(gpus, expected):
    assert [card.name for card in cards.select(gpus, H200S)] == expected


def test_all_without_any_card_is_one_worker_on_the_cpu():
    assert [card.name for card in cards.select("all", Present())] == ["cpu:0"]


@pytest.mark.parametrize("gpus", ["7", "cpu:0", "cpu:x", "tpu", "", "0,,1", "0:0", "-1", "GPU-", "GPU-9", "²"])
def test_asked_names_the_cards_there_are_when_it_cannot(gpus):
    with pytest.raises(FarmError, match=r"cuda:0, cuda:1, cuda:2, cuda:3"):
        cards.select(gpus, H200S)


@pytest.mark.parametrize(
    ("only", "left"),
    [
        ("1,0", ["cuda:1", "cuda:0:0", "cuda:0:1"]),
        ("GPU-5d5b", ["cuda:1"]),
        ("GPU-8932f937", ["cuda:0:0", "cuda:0:1"]),
        (f"{MIGS[1]},MIG-c6d4", ["cuda:0:1", "cuda:0:0"]),
        ("1,-1,0", ["cuda:1"]),
        ("1,1, GPU-5d5ba0d6", ["cuda:1"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_present_leaves_what_cuda_visible_devices_names_in_its_order(nvidia, only, left):
    nvidia(QUERY, LIST)
    assert names(cards.present({"CUDA_VISIBLE_DEVICES": only})) == left


def test_a_card_that_the_variable_hides_is_told_to_be_hidden(nvidia):
    nvidia(QUERY, LIST)
    for only, left in (("1", r"cuda:1 \(GPU-5d5b.*\)"), ("", "no card at all")):
        there = cards.present({"CUDA_VISIBLE_DEVICES": only})
        with pytest.raises(FarmError, match=rf"FARM_GPUS=0 names '0', .*CUDA_VISIBLE_DEVICES={only} leaves {left}\."):
            cards.select("0", there)


@pytest.mark.parametrize("only", ["7", "0,7", "GPU-77", "MIG-77", "all", "MIG-GPU-8932f937/1/0", "MIG-c"])
def test_an_unknown_name_in_cuda_visible_devices_is_an_error_and_never_the_cpu(nvidia, only):
    nvidia(QUERY, LIST)
    with pytest.raises(FarmError, match=rf"CUDA_VISIBLE_DEVICES={only} names .*cuda:0:0, cuda:0:1, cuda:1 \(MIG-c6d4"):
        cards.present({"CUDA_VISIBLE_DEVICES": only})


def test_a_name_in_cuda_visible_devices_of_a_machine_without_cards_is_an_error_too(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nvidia_smi, "_CONTROL", tmp_path / "nvidiactl")
    assert cards.present({"CUDA_VISIBLE_DEVICES": ""}).cards == ()
    with pytest.raises(FarmError, match=r"CUDA_VISIBLE_DEVICES=0 names '0', .*no card at all"):
        cards.present({"CUDA_VISIBLE_DEVICES": "0"})


def test_each_mig_instance_has_a_worker_and_its_card_has_none(nvidia):
    nvidia(QUERY, LIST)
    there = cards.present({})
    assert [(card.name, card.uuid, card.label) for card in cards.select("all", there)] == [
        ("cuda:0:0", MIGS[0], f"{A100} MIG 3g.20gb"),
        ("cuda:0:1", MIGS[1], f"{A100} MIG 3g.20gb"),
        ("cuda:1", SECOND, A100),
    ]
    assert [card.name for card in cards.select("0", there)] == ["cuda:0:0", "cuda:0:1"]
    assert cards.select("0:1", there) == (cards.find("cuda:0:1", there),)
    with pytest.raises(FarmError, match=r"'cuda:0' is several MIG instances\. This machine has cuda:0:0, cuda:0:1"):
        cards.find("cuda:0", there)


def test_instances_of_older_drivers_are_read_too(nvidia):
    uuid = f"MIG-{FIRST}/1/0"
    nvidia(QUERY, f"GPU 0: {A100} (UUID: {FIRST})\n  MIG 1g.5gb Device 0: (UUID: {uuid})\n")
    assert [card.uuid for card in cards.present({}).cards] == [uuid, SECOND]


def test_a_beginning_that_two_uuids_have_names_neither():
    with pytest.raises(FarmError, match="'GPU-', with which several UUIDs begin"):
        cards.select("GPU-", H200S)


@pytest.mark.parametrize("status", [0, 15, 255])
@pytest.mark.parametrize(
    ("query", "listed"),
    [
        (f"0, {FIRST}, {A100}\n{LOST}\n", ""),
        (LOST, f"GPU 0: {A100} (UUID: {FIRST})\n{LOST}\n"),
        (f"0, {FIRST}, {A100}\n[GPU is lost], [GPU is lost], [GPU is lost]\n", f"{LOST}\n"),
    ],
)
def test_cards_are_served_beside_one_that_is_lost(nvidia, query, listed, status):
    nvidia(query, listed, status)
    there = cards.present({})
    assert names(there) == ["cuda:0"]
    assert LOST in there.trouble
    for gpus in ("all", "0", "0,1", "1,0"):
        assert [card.name for card in cards.select(gpus, there)] == ["cuda:0"]
    assert names(cards.present({"CUDA_VISIBLE_DEVICES": "1,0"})) == ["cuda:0"]
    with pytest.raises(FarmError, match=f"names '1', which is not a card here.*{LOST}"):
        cards.select("1", there)


def test_a_warning_of_nvidia_smi_is_no_card_that_is_missing(nvidia):
    nvidia(QUERY + "WARNING: infoROM is corrupted at gpu 0000:86:00.0\n", LIST)
    there = cards.present({})
    assert there.trouble == ""
    with pytest.raises(FarmError):
        cards.select("1,7", there)


@pytest.mark.parametrize(("status", "refused"), [(6, False), (9, True), (0, True)])
def test_cards_that_fail_are_not_taken_for_no_cards(nvidia, status, refused):
    nvidia("No communication with the driver.\n", "No communication with the driver.\n", status)
    if refused:
        with pytest.raises(FarmError, match=rf"status {status}: No communication with the driver\. FARM_GPUS=cpu"):
            cards.present({})
    else:
        assert cards.present({}).cards == ()


def test_an_nvidia_smi_that_finds_nothing_is_no_card(nvidia):
    for status in (0, 6):
        nvidia("No devices were found\n", "", status)
        assert cards.present({}) == Present()


def test_an_nvidia_smi_that_cannot_be_run_is_told(nvidia, tmp_path):
    nvidia()
    (tmp_path / "nvidia-smi").write_text("")
    with pytest.raises(FarmError, match=rf"{tmp_path}/nvidia-smi cannot be run \(Exec format error\)\. FARM_GPUS=cpu"):
        cards.present({})


def test_a_driver_without_nvidia_smi_is_not_taken_for_no_cards(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nvidia_smi, "_CONTROL", tmp_path)
    with pytest.raises(FarmError, match=r"no nvidia-smi on PATH.*compute,utility.*FARM_GPUS=cpu"):
        cards.present({})


@pytest.fixture
def hanging(nvidia, monkeypatch, tmp_path):
    """Puts an nvidia-smi on PATH that hangs after what it says to the query, and to `-L` where `list_hangs`.

    Its time is up as soon as it hangs, and no sooner.
    """
    communicate = subprocess.Popen.communicate

    def patient(asked, **given):
        until(lambda: asked.poll() is not None or (tmp_path / f"{asked.pid} hangs").exists())
        return communicate(asked, **given)

    def make(query, listed, list_hangs):
        nvidia(query, listed)
        program = tmp_path / "nvidia-smi"
        hangs = f'touch "{tmp_path}/$$ hangs"; exec sleep 60'
        program.write_text(
            program.read_text().replace("exit 0", hangs if list_hangs else f'[ "$1" = -L ] || {{ {hangs}; }}')
        )

    monkeypatch.setattr(subprocess.Popen, "communicate", patient)
    for name in ("_SECONDS", "_READ_SECONDS"):
        monkeypatch.setattr(nvidia_smi, name, 0.2)
    return make


@pytest.mark.parametrize(
    ("query", "listed", "list_hangs", "left"),
    [
        (QUERY.splitlines(keepends=True)[0], LIST, False, ["cuda:0:0", "cuda:0:1", "cuda:1"]),
        ("", LIST, False, ["cuda:0:0", "cuda:0:1", "cuda:1"]),
        (QUERY, "", True, ["cuda:0", "cuda:1"]),
        ("", LIST.rpartition("GPU 1")[0], True, ["cuda:0:0", "cuda:0:1"]),
        (QUERY[: QUERY.index("\n") + 12], "", True, ["cuda:0"]),
    ],
    ids=["the list goes on", "the list knows all", "the query knew all", "the list knew some", "half a UUID"],
)
def test_cards_are_served_that_were_told_of_before_nvidia_smi_hung(hanging, query, listed, list_hangs, left):
    hanging(query, listed, list_hangs)
    there = cards.present({})
    assert names(there) == left
    assert "the driver hangs" in there.trouble


def test_an_nvidia_smi_that_hangs_before_it_tells_of_a_card_is_given_up(hanging):
    hanging("", "", list_hangs=True)
    with pytest.raises(FarmError, match=r"lists no card: nvidia-smi does not answer: the driver hangs\. FARM_GPUS=cpu"):
        cards.present({})


def test_both_ways_of_asking_share_one_wait(monkeypatch):
    given, answer = [], nvidia_smi._Answer(0, ())
    clock = iter([100.0, 100.0, 160.0])
    monkeypatch.setattr(nvidia_smi.shutil, "which", lambda _: "/bin/true")
    monkeypatch.setattr(nvidia_smi, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(nvidia_smi, "_start", lambda *_: None)
    monkeypatch.setattr(nvidia_smi, "_answer", lambda _, seconds: given.append(seconds) or answer)
    nvidia_smi.listing()
    assert given == [nvidia_smi._SECONDS, nvidia_smi._READ_SECONDS]


def test_one_that_no_signal_ends_is_not_waited_for(monkeypatch):
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as asked:
        monkeypatch.setattr(asked, "kill", lambda: None)
        nvidia_smi._give_up(asked)
        asked.send_signal(signal.SIGKILL)


def test_a_process_that_is_given_its_cards_uuid_asks_nobody(nvidia, tmp_path):
    nvidia(LOST, LOST, 15)
    options = command._parser().parse_args(["--card", "cuda:2", "--uuid", SECOND, "--label", A100])
    assert command._card(options) == Address("cuda:2", SECOND, A100)
    assert not (tmp_path / "asked").exists()
    with pytest.raises(FarmError, match=LOST):
        command._card(command._parser().parse_args(["--card", "cuda:2"]))


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:128"}, {"PYTORCH_ALLOC_CONF": "max_split_size_mb:128"}),
        ({"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, {"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}),
    ],
)
def test_a_process_sees_its_card_alone_and_takes_its_memory_in_segments_that_grow(monkeypatch, given, left):
    monkeypatch.setattr(os, "environ", dict(given))
    cards.pin(Address("cuda:2", SECOND, A100))
    assert os.environ == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": SECOND, **left}


def test_a_process_on_the_cpu_sees_no_card(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    cards.pin(Address("cpu:0"))
    assert os.environ == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ""}
