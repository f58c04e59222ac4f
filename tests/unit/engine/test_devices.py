from __future__ import annotations

import errno
from typing import Any

import pytest
import torch

from shared.errors import CardError, SettingsError
from tests.support.card_ledger import Ledger
from worker.engine import cuda_errors, devices, transfers
from worker.engine.devices import Device, device
from worker.engine.failures import no_room

CARD = Device("cuda:0", "cuda", "a card", 24 * 2**30)


def test_shares_of_the_cpu_differ_in_name_alone() -> None:
    assert device("cpu") == device("cpu:0")
    assert device("cpu:1").name == "cpu:1"
    assert device("cpu:1").torch == torch.device("cpu")
    assert device("cpu").label


@pytest.mark.parametrize("card", ["tpu:0", "cuda:99", ""])
def test_a_card_that_is_not_there_is_named(card: str) -> None:
    with pytest.raises(CardError, match=r"there is no card|is a build without CUDA|CUDA sees"):
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


@pytest.mark.usefixtures("pretended")
def test_float32_on_a_card_keeps_all_its_bits() -> None:
    """Also where all else is in half precision: a VAE that overflowed is asked once more in float32."""
    backends: Any = torch.backends
    backends.cudnn.allow_tf32, backends.cudnn.conv.fp32_precision = True, "tf32"  # as torch begins
    devices.enter(device("cuda:0"))
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    made = torch.nn.functional.conv2d(x.to("cuda:0"), weight.to("cuda:0"))
    assert torch.equal(made.cpu(), torch.nn.functional.conv2d(x, weight))
    for operation in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul):
        assert operation.fp32_precision == "ieee"
    assert backends.cudnn.allow_tf32 is backends.cuda.matmul.allow_tf32 is False  # both names agree, or torch raises


def test_a_stream_of_its_own_computes_as_the_engine_does() -> None:
    """A load may come before the engine's start, and computes what previews know."""
    backends: Any = torch.backends
    backends.cudnn.allow_tf32, backends.cudnn.conv.fp32_precision = True, "tf32"  # as torch begins
    backends.cuda.enable_cudnn_sdp(enabled=True)
    with transfers.own_stream(CARD):
        assert backends.cudnn.conv.fp32_precision == "ieee"
        assert not backends.cuda.cudnn_sdp_enabled()


def test_what_the_host_cannot_pin_is_sent_as_it_is(pretended: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretended, "pinnable", 0)
    tensor = torch.ones(3)
    assert transfers.pinned(tensor, CARD) is tensor


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
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("CUDA driver error: out of memory"), True),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOENT, "No such file"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (no_room("a picture"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), False),
        (RuntimeError("shapes differ"), False),
        (ValueError("the prompt asks for CUDNN_STATUS_ALLOC_FAILED"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_trouble(error: Exception, expected: bool) -> None:  # noqa: FBT001
    assert cuda_errors.is_out_of_memory(error) is expected


def accelerator_error(words: str, code: int | None) -> torch.AcceleratorError:
    error = torch.AcceleratorError(f"CUDA error: {words}")
    if code is not None:
        error.error_code = code
    return error


@pytest.mark.parametrize(
    ("words", "code", "is_fatal"),
    [
        ("out of memory", 2, False),
        ("out of memory", None, False),
        ("invalid argument", 1, False),
        ("invalid configuration argument", 9, False),
        ("invalid device function", 98, False),
        ("no kernel image is available for execution on the device", 209, False),
        ("operation not supported", 801, False),
        ("an illegal memory access was encountered", 700, True),
        ("device-side assert triggered", 710, True),
        ("unspecified launch failure", 719, True),
        ("uncorrectable ECC error encountered", 214, True),
        ("unknown error", 999, True),
        ("whatever a build says that tells no code", None, True),
    ],
)
def test_a_card_is_lost_by_the_code_of_its_error(words: str, code: int | None, is_fatal: bool) -> None:  # noqa: FBT001
    error = accelerator_error(words, code)
    assert cuda_errors.is_fatal(error) is is_fatal
    assert not (cuda_errors.is_fatal(error) and cuda_errors.is_out_of_memory(error))


def test_the_code_says_that_memory_ran_out_whatever_the_words() -> None:
    assert cuda_errors.is_out_of_memory(accelerator_error("launching the kernel", 2))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), torch.OutOfMemoryError(), SystemExit("told to go")])
def test_no_other_error_loses_a_card(error: BaseException) -> None:
    assert not cuda_errors.is_fatal(error)


def test_a_card_takes_few_row_counts_and_a_cpu_any() -> None:
    assert CARD.ladder == (1, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32)
    assert device("cpu").ladder == ()


def test_the_wait_for_a_card_that_is_behind_is_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[bool] = []

    class Event:
        def __init__(self, *, blocking: bool = False) -> None:
            self.blocking = blocking

        def record(self) -> None: ...

        def synchronize(self) -> None:
            waited.append(self.blocking)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    pace = transfers.Pace(CARD)
    for _ in range(5):
        pace.turn()
    assert waited == [True] * (5 - transfers.TURNS_AHEAD)
    pace.stop()
    assert waited == [True] * 5
