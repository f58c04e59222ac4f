from __future__ import annotations

import pytest
import torch

from shared.errors import SettingsError
from worker.engine import devices
from worker.engine.devices import Device, device

CARD = Device("cuda:0", "cuda", "a card", 24 * 2**30)


def test_shares_of_the_cpu_differ_in_name_alone() -> None:
    assert device("cpu") == device("cpu:0")
    assert device("cpu:1").name == "cpu:1"
    assert device("cpu:1").torch == torch.device("cpu")
    assert device("cpu").label


@pytest.mark.parametrize("card", ["tpu:0", "cuda:99", ""])
def test_a_card_that_is_not_there_is_named(card: str) -> None:
    with pytest.raises(ValueError, match="there is no card"):
        device(card)


def test_a_cpu_takes_eight_guided_pictures_at_once() -> None:
    assert device("cpu").row_budget == 16
    assert device("cpu").slots == 8


@pytest.mark.parametrize(("gibibytes", "rows", "slots"), [(80, 32, 24), (24, 16, 12), (8, 8, 6), (4, 4, 3)])
def test_a_card_has_half_as_many_slots_again_as_fill_its_rows(gibibytes: int, rows: int, slots: int) -> None:
    card = Device("cuda:0", "cuda", "a card", gibibytes * 2**30)
    assert (card.row_budget, card.slots) == (rows, slots)


@pytest.mark.parametrize(
    ("on", "precision", "expected"),
    [
        (device("cpu"), "auto", torch.float32),
        (device("cpu"), "bfloat16", torch.bfloat16),
        (CARD, "auto", torch.float16),
        (CARD, "float32", torch.float32),
    ],
)
def test_precision_means_a_number_format(on: Device, precision: str, expected: torch.dtype) -> None:
    assert devices.default_dtype(on, precision) == expected


def test_half_precision_is_not_for_a_cpu() -> None:
    with pytest.raises(SettingsError, match="FARM_PRECISION=float16"):
        devices.default_dtype(device("cpu"), "float16")


def test_a_vae_never_decodes_in_half_precision() -> None:
    for on in (device("cpu"), CARD):
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            assert devices.decoder_dtype(on, dtype) != torch.float16


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_trouble(error: Exception, expected: bool) -> None:  # noqa: FBT001
    assert devices.is_out_of_memory(error) is expected
