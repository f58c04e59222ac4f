"""Errors of PyTorch and CUDA: what they mean for the process, and for people, with what to do about them."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from typing import Final

import torch

from shared.errors import OutOfMemory

_OUT_OF_MEMORY: Final = 2  # cudaErrorMemoryAllocation
# CUDA errors after which the card still answers: an invalid value or configuration, a function or kernel that this card
# does not have, and unsupported operations. After all others every call fails until a new process starts.
_HARMLESS: Final = frozenset({1, _OUT_OF_MEMORY, 9, 98, 209, 801})
# Messages without a type of their own: of the host's allocator, CUDA and its driver, and the libraries above them.
_FULL: Final = re.compile(r"DefaultCPUAllocator|CUDA (driver )?error: out of memory|\bCU[A-Z]+_STATUS_\w*ALLOC")
_NO_KERNEL: Final = (209, "no kernel image")  # CUDA's code, and its words for errors without a code
_NOT_SUPPORTED: Final = (801, "operation not supported")
_TOO_OLD: Final = re.compile(r"driver on your system is too old \(found version (\d+)\)")
_DRIVERS: Final = {"13": 580, "12": 525}  # CUDA's major version -> the oldest driver that runs it
# Builds of the pinned PyTorch, and the compute capabilities that they have kernels for.
_BUILDS: Final = (("cu126", (5, 0), (9, 0)), ("cu130", (7, 5), (99, 0)))
_HOW: Final = "docs/install.md says how, under Which PyTorch"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out, on the card or on the host, by whichever allocator."""
    if isinstance(error, OutOfMemory | torch.OutOfMemoryError | MemoryError) or _code(error) == _OUT_OF_MEMORY:
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _FULL.search(str(error)) is not None


def is_fatal(error: BaseException) -> bool:
    """Return whether the card answers nothing any more after `error`, so that only a new process helps."""
    if not isinstance(error, torch.AcceleratorError) or is_out_of_memory(error):
        return False
    return _code(error) not in _HARMLESS


def _code(error: BaseException) -> int | None:
    return getattr(error, "error_code", None) if isinstance(error, torch.AcceleratorError) else None


def without_cuda() -> str:
    """Return what to do about a build of PyTorch for CPUs."""
    return f"PyTorch {torch.__version__} is a build without CUDA: install one with it ({_HOW})"


def not_started(message: str) -> str:
    """Return why CUDA does not start or finds no card, by PyTorch's message about it, which may be empty."""
    line = _first_line(message)
    if match := _TOO_OLD.search(line):
        return _driver_too_old(int(match[1]))
    if "Found no NVIDIA driver" in line:
        return "no NVIDIA driver answers: install it; a container needs the NVIDIA container toolkit and its card"
    if not line or "No CUDA GPUs are available" in line:
        return (
            "CUDA sees no such card: it may have fallen off the bus (see `nvidia-smi` and `dmesg`), or be in MIG mode "
            "without an instance"
        )
    return f"CUDA does not start: {line}"


def failed(error: BaseException) -> str:
    """Return what an error of a card means, in a line, with what to do about it if that is known."""
    line = _first_line(str(error)) or type(error).__name__
    if _is(_NOT_SUPPORTED, error):
        return f"{line}; on a virtual card PYTORCH_ALLOC_CONF=expandable_segments:False may help"
    return line


def is_without_kernels(error: BaseException) -> bool:
    """Return whether an error means that this build of PyTorch has no kernels for the card."""
    return _is(_NO_KERNEL, error)


def without_kernels(capability: tuple[int, int], built_for: Sequence[str]) -> str:
    """Return which build has kernels for a card of this compute capability."""
    build = next((name for name, least, most in _BUILDS if least <= capability <= most and name != _this()), None)
    advice = f"install the build {build} ({_HOW})" if build else "no other build of this version has them either"
    return (
        f"PyTorch {torch.__version__} has no kernels for its compute capability, {capability[0]}.{capability[1]}, only "
        f"for {', '.join(built_for) or 'none'}: {advice}"
    )


def _first_line(message: str) -> str:
    return next(iter(message.strip().splitlines()), "")


def _is(kind: tuple[int, str], error: BaseException) -> bool:
    code, words = kind
    return getattr(error, "error_code", None) == code or words in str(error)


def _driver_too_old(knows: int) -> str:
    """`knows`: the latest CUDA that the driver runs, as CUDA writes it: 12020 is 12.2."""
    needed = torch.version.cuda or ""
    oldest = _DRIVERS.get(needed.partition(".")[0])
    update = f"update it to {oldest} or later" if oldest else "update it"
    build = f"the build {_BUILDS[0][0]}" if knows >= 12000 and _this() != _BUILDS[0][0] else "a build for an older CUDA"
    return (
        f"the NVIDIA driver is too old: it runs CUDA up to {knows // 1000}.{knows % 1000 // 10}, and PyTorch "
        f"{torch.__version__} needs CUDA {needed}: {update}, or install {build} ({_HOW})"
    )


def _this() -> str:
    return f"cu{(torch.version.cuda or '').replace('.', '')}"
