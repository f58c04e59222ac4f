"""Why there is no card; what PyTorch is made to say are its words in c10/cuda/CUDAFunctions.cpp."""

from __future__ import annotations

import warnings

import pytest
import torch

from shared.errors import CardError
from worker.engine import devices

TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: "
    "https://pytorch.org to install a PyTorch version that has been compiled with your version of the CUDA driver."
)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """A build of PyTorch with CUDA that finds no card, and says why when it is to begin."""

    def says(words: str | None) -> None:
        def unavailable() -> bool:
            warnings.warn(f"CUDA initialization: {words}", stacklevel=1)
            return False

        def init() -> None:
            if words:
                raise RuntimeError(words)

        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", unavailable)
        monkeypatch.setattr(torch.cuda, "init", init)

    return says


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            TOO_OLD,
            r"driver is too old: it runs CUDA up to 12\.2, and PyTorch \S+ needs CUDA 13\.0: update it to 580 or",
        ),
        (TOO_OLD, r", or install the build cu126 \(docs/install.md"),
        (TOO_OLD.replace("12020", "11080"), r"up to 11\.8, .* or install a build for an older CUDA \(docs/install.md"),
        (
            "Found no NVIDIA driver on your system. Please check that …",
            "no NVIDIA driver answers: install it; a contai",
        ),
        ("No CUDA GPUs are available", "CUDA sees no such card: it may have fallen off the bus .* or be in MIG mode"),
        ("", "CUDA sees no such card"),
        ("CUDA unknown error - this may be due to an incorrectly set up environment", "CUDA does not start: CUDA unkn"),
        ("Unexpected error from cudaGetDeviceCount(). … Error 804: forward compatibility", "does not start: .* 804"),
    ],
)
def test_each_reason_is_told_with_what_to_do(without, words: str, told: str):
    without(words)
    with pytest.raises(CardError, match=told):
        devices.device("cuda:0")


def test_a_card_that_takes_nobody_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch):
    def busy(_: int) -> None:
        raise torch.AcceleratorError(
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors …"
        )

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", busy)
    with pytest.raises(CardError, match=r"busy or unavailable$"):
        devices.device("cuda:0")


def test_a_build_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.why_no_card().startswith(f"PyTorch {torch.__version__} is a build without CUDA: install one with")


def test_a_card_that_is_there_needs_no_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.why_no_card() == ""
    with pytest.raises(CardError, match="there is no card 'cuda:2' here: CUDA sees 2"):
        devices.device("cuda:2")
