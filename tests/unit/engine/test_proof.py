from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from shared.errors import CardError
from tests.support.card_ledger import Ledger
from worker.engine import devices, proof, transfers

FORMATS = (torch.float16, torch.bfloat16, torch.float32)


@pytest.fixture
def card(pretended: Ledger) -> devices.Device:
    pretended.clear()
    return devices.device("cuda:0")


@pytest.fixture
def refusing(pretended: Ledger, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Exception], None]:
    """Has every kernel of a name raise an error."""

    def refuse(kernel: str, error: Exception) -> None:
        def on_kernel(name: str, _: Sequence[Tensor]) -> None:
            if name == kernel:
                raise error

        monkeypatch.setattr(pretended, "on_kernel", on_kernel)

    return refuse


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_sound_card_proves_itself_and_keeps_nothing(card: devices.Device, pretended: Ledger, dtype: torch.dtype):
    proof.prove(card, dtype)
    assert (pretended.live, pretended.errors, dict(pretended.pinned)) == (0, [], {})


@pytest.mark.parametrize("dtype", FORMATS)
def test_sound_numbers_stay_far_below_the_bounds(card: devices.Device, dtype: torch.dtype):
    with torch.inference_mode():
        for check in proof._checks(dtype, devices.decoder_dtype(card, dtype)):
            off = proof.largest_difference(*check.ask(card, check.dtype))
            assert off <= proof.BOUNDS.get(check.dtype, 0.0) / 4, check.name


def test_a_cpu_needs_no_proof(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proof, "_prove", lambda *_: pytest.fail("asked"))
    proof.prove(devices.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("function", "check"),
    [
        ("linear", "a product of matrices"),
        ("conv2d", "a convolution"),
        ("scaled_dot_product_attention", "attention"),
        ("group_norm", "the decoder's layers"),
    ],
)
@pytest.mark.parametrize(
    "fault", ["one number is off", "all are off by a tenth", "one is not a number", "one is infinite"]
)
def test_wrong_numbers_are_found(
    card: devices.Device, monkeypatch: pytest.MonkeyPatch, function: str, check: str, fault: str
):
    sound = getattr(torch.nn.functional, function)

    def wrong(*given: Tensor, **options: object) -> Tensor:
        result: Tensor = sound(*given, **options)
        if result.device.type != "cuda":
            return result
        one = torch.zeros(result.shape, dtype=result.dtype)
        one.view(-1)[7] = {"one is not a number": torch.nan, "one is infinite": torch.inf}.get(
            fault, result.abs().max().item()
        )
        return result * 1.1 if fault == "all are off by a tenth" else result + one.to(result.device)

    monkeypatch.setattr(torch.nn.functional, function, wrong)
    with pytest.raises(CardError, match=rf"pretended failed at {check} in .*its numbers are off by .*FARM_GPUS"):
        proof.prove(card, torch.float16)


def test_attention_that_forgets_its_mask_is_found(card: devices.Device, monkeypatch: pytest.MonkeyPatch):
    sound = torch.nn.functional.scaled_dot_product_attention

    def unmasked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return sound(query, key, value, mask if query.device.type == "cpu" else None)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", unmasked)
    with pytest.raises(CardError, match="attention with a mask in float16: its numbers are off"):
        proof.prove(card, torch.float16)


def test_a_copy_that_loses_a_byte_is_found(card: devices.Device, monkeypatch: pytest.MonkeyPatch):
    sound = transfers.to_device

    def losing(tensor: Tensor, to: devices.Device) -> Tensor:
        there = sound(tensor, to)
        return there.where(torch.arange(len(there)).to(to.torch) != 4711, 0) if there.dtype == torch.uint8 else there

    monkeypatch.setattr(transfers, "to_device", losing)
    with pytest.raises(CardError, match="a copy through pinned memory in uint8: its numbers are off"):
        proof.prove(card, torch.float16)


def error_of_cuda(words: str, code: int) -> Exception:
    error = torch.AcceleratorError(f"CUDA error: {words}\nCompile with `TORCH_USE_CUDA_DSA` to enable assertions.\n")
    error.error_code = code
    return error


@pytest.mark.parametrize(
    ("capability", "cuda", "advice"),
    [
        ((6, 1), "13.0", "install the build cu126 (docs/install.md"),
        ((7, 0), "13.0", "install the build cu126"),
        ((12, 0), "12.6", "install the build cu130"),
        ((3, 5), "13.0", "no other build of this version has them either"),
        ((9, 0), "13.0", "install the build cu126"),
        ((12, 1), "13.0", "no other build of this version"),
    ],
)
def test_a_card_without_kernels_is_told_which_build_has_them(  # noqa: PLR0917 - fixtures and cases
    card: devices.Device,
    refusing: Callable[[str, Exception], None],
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    cuda: str,
    advice: str,
):
    refusing("convolution", error_of_cuda("no kernel image is available for execution on the device", 209))
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    with pytest.raises(CardError) as told:
        proof.prove(card, torch.float16)
    words = str(told.value)
    assert words.startswith(f"pretended failed at a convolution in float16: PyTorch {torch.__version__} has no kernels")
    assert f"compute capability, {capability[0]}.{capability[1]}, only for sm_75, sm_80" in words
    assert advice in words


def test_a_card_whose_memory_others_have_says_so(
    card: devices.Device, pretended: Ledger, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pretended, "capacity", 2**20 + 2**16)
    with pytest.raises(CardError, match=r"its memory is full: end what else runs on it \(`nvidia-smi` lists it\)"):
        proof.prove(card, torch.float16)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            error_of_cuda("operation not supported", 801),
            r"operation not supported; on a virtual card PYTORCH_ALLOC_CONF",
        ),
        (
            error_of_cuda("uncorrectable ECC error encountered", 214),
            r"float16: CUDA error: uncorrectable ECC error enc",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), "CUDNN_STATUS_NOT_INITIALIZED$"),
        (OSError("libcudnn_graph.so.9: cannot open shared object file"), "libcudnn_graph.so.9: cannot open"),
        (RuntimeError(), "float16: RuntimeError$"),
    ],
)
def test_whatever_fails_is_told_in_a_line(
    card: devices.Device, refusing: Callable[[str, Exception], None], error: Exception, told: str
):
    refusing("scaled_dot_product_attention", error)
    with pytest.raises(CardError, match=f"failed at attention in .*{told}") as failed:
        proof.prove(card, torch.float16)
    assert "\n" not in str(failed.value)
    assert failed.value.__cause__ is error
