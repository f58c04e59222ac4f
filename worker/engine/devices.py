"""The one module that asks about devices: what a card is, how much it takes at once, and how much memory is free."""

from __future__ import annotations

import math
import platform
import warnings
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

import torch

from shared.errors import CardError, SettingsError
from worker.engine import cuda_errors
from worker.engine.row_limits import RowLimits

CPU_ROWS: Final = 16
_LADDER: Final = (1, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32)
_CARD_ROWS: Final = ((40, 32), (10, 16), (6, 8), (0, 4))  # GiB of the card -> rows beyond which a call gains nothing
_FORMATS: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Device:
    """One card, or a share of the CPU: `cuda:0`, `cpu:0`. Shares of the CPU differ only in their names."""

    name: str
    kind: Literal["cpu", "cuda"]
    label: str  # for people
    memory_bytes: int  # 0: it has no memory of its own
    row_limits: RowLimits | None = field(default=None, compare=False, repr=False)  # of a CPU: measured before

    @property
    def torch(self) -> torch.device:
        """The device as torch names it."""
        return torch.device("cpu" if self.kind == "cpu" else self.name)

    @property
    def row_budget(self) -> int:
        """Rows of a checkpoint's native size that one call should hold at most."""
        gibibytes = self.memory_bytes / 2**30
        return CPU_ROWS if self.kind == "cpu" else next(rows for least, rows in _CARD_ROWS if gibibytes >= least)

    @property
    def text_budget(self) -> int:
        """Chunks of texts that one call should hold at most. One fills a CPU, and alone it always rounds the same."""
        return 1 if self.kind == "cpu" else self.row_budget

    @property
    def ladder(self) -> tuple[int, ...]:
        """How many rows a call may have, rising; empty: any number.

        A card prepares kernels for every new number of rows, and all pictures wait meanwhile.
        """
        return () if self.kind == "cpu" else _LADDER

    @property
    def slots(self) -> int:
        """Pictures to have in flight: on a card half as many again as fill its rows, so that its rows stay filled."""
        pictures = self.row_budget // 2  # guidance takes two rows a picture
        return pictures if self.kind == "cpu" else math.ceil(1.5 * pictures)


def device(card: str) -> Device:
    """Return the device called `card`: `cpu`, `cpu:N` or `cuda:N`.

    Raises CardError with the reason if there is no such device, or if it does not answer.
    """
    kind, _, number = card.partition(":")
    if kind == "cpu":
        return Device(f"cpu:{number or 0}", "cpu", _cpu_label(), 0)
    if kind != "cuda" or not (number or "0").isdecimal():
        raise CardError(f"there is no card {card!r} here: accepted are cpu, cpu:1, cuda:0")
    if why := why_no_card():
        raise CardError(why)
    if int(number or 0) >= (count := torch.cuda.device_count()):
        raise CardError(f"there is no card {card!r} here: CUDA sees {count}")
    try:
        facts = torch.cuda.get_device_properties(int(number or 0))
    except RuntimeError as error:  # the card is there but does not answer
        raise CardError(cuda_errors.failed(error)) from error
    return Device(f"cuda:{number or 0}", "cuda", facts.name, facts.total_memory)


def enter(on: Device) -> None:
    """Direct the calling thread's calls to `on`: by default a thread uses the first card."""
    if on.kind == "cuda":
        torch.cuda.set_device(on.torch)
        torch.backends.cuda.enable_cudnn_sdp(enabled=False)  # it builds a graph for every new shape: 20 ms and more
        _disable_tf32()


def _disable_tf32() -> None:
    """Make cards multiply float32 as IEEE says: by default their convolutions read 10 of its 23 bits (TF32).

    If everything else is in half precision, float32 is there for a VAE that overflowed and is called again.
    """
    backends: Any = torch.backends  # torch's stubs know nothing of the settings below
    backends.cudnn.allow_tf32 = False  # the older name of the same setting: torch wants both to agree
    backends.cuda.matmul.allow_tf32 = False
    for operation in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul):
        operation.fp32_precision = "ieee"


def why_no_card() -> str:
    """Return why this process has no card and what to do about it; "" if it has one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about what the answer says
        if torch.cuda.is_available():
            return ""
        if not torch.version.cuda:
            return cuda_errors.without_cuda()
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            return cuda_errors.not_started(str(error))
    return cuda_errors.not_started("")


def explain(error: Exception, on: Device) -> str:
    """Return what an error of the card means, in a line, and what to do about it."""
    if cuda_errors.is_out_of_memory(error):
        return f"its memory is full: end what else runs on it (`nvidia-smi` lists it) ({cuda_errors.failed(error)})"
    if cuda_errors.is_without_kernels(error):
        return cuda_errors.without_kernels(torch.cuda.get_device_capability(on.torch), torch.cuda.get_arch_list())
    return cuda_errors.failed(error)


def default_dtype(on: Device, precision: str) -> torch.dtype:
    """Return the number format that `precision` means; `auto`: float16 on a card, float32 on the CPU."""
    if precision == "auto":
        return torch.float32 if on.kind == "cpu" else torch.float16
    if on.kind == "cpu" and precision == "float16":
        raise SettingsError("FARM_PRECISION=float16 is for cards; on a CPU use float32, or bfloat16 where it has AMX")
    return _FORMATS[precision]


def decoder_dtype(on: Device, dtype: torch.dtype) -> torch.dtype:
    """Return the number format for a VAE beside a U-Net in `dtype`: Stable Diffusion's overflow in float16."""
    has_bfloat16 = on.kind == "cuda" and torch.bfloat16 in half_formats(on)
    return torch.bfloat16 if dtype != torch.float32 and has_bfloat16 else torch.float32


def half_formats(on: Device) -> frozenset[torch.dtype]:
    """Return the number formats of 16 bits that the device computes in."""
    if on.kind == "cpu":
        return frozenset({torch.bfloat16})
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return frozenset({torch.float16, torch.bfloat16} if has_bfloat16 else {torch.float16})


def free_bytes(on: Device) -> int | None:
    """Return how many bytes the card can still give, with what torch has cached; None if the device cannot tell."""
    if on.kind == "cpu":
        return None
    free, _ = torch.cuda.mem_get_info(on.torch)
    return free + torch.cuda.memory_reserved(on.torch) - torch.cuda.memory_allocated(on.torch)


def offered_bytes(on: Device) -> int | None:
    """Return how many bytes of the card this process has or could still get; None if the device cannot tell."""
    if on.kind == "cpu":
        return None
    free, _ = torch.cuda.mem_get_info(on.torch)
    return free + torch.cuda.memory_reserved(on.torch)


def release_memory() -> None:
    """Return cached memory to the card, so that a smaller call fits."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class MemoryPeak:
    """The most memory that this process has taken of a card since some moment, above what it had taken then."""

    def __init__(self, device: torch.device) -> None:
        torch.cuda.reset_peak_memory_stats(device)
        self._device = device
        self.before = torch.cuda.memory_allocated(device)

    @classmethod
    def since_now(cls, on: Device) -> MemoryPeak | None:
        """Return the peak from now on; None if the device cannot tell."""
        return cls(on.torch) if on.kind == "cuda" else None

    def bytes(self) -> int:
        """Return the peak above the amount at the beginning."""
        return self.total_bytes() - self.before

    def total_bytes(self) -> int:
        """Return the peak with all that this process had taken before."""
        return torch.cuda.max_memory_allocated(self._device)


def processor_name() -> str:
    """Return the name of the processor with all that decides how its kernels round, beside threads and versions."""
    facts = _cpu_facts()
    model = "-".join(facts[name] for name in ("cpu family", "model", "stepping") if name in facts)
    features = sha256(" ".join(sorted(facts.get("flags", "").split())).encode()).hexdigest()[:8]
    return f"{_cpu_label()} ({', '.join(filter(None, (model, torch.backends.cpu.get_cpu_capability(), features)))})"


def _cpu_label() -> str:
    return _cpu_facts().get("model name") or platform.machine()


def _cpu_facts() -> dict[str, str]:
    """Return what the system says about the first processor; nothing if it says nothing."""
    facts = Path("/proc/cpuinfo")
    first = facts.read_text(encoding="utf-8").partition("\n\n")[0] if facts.exists() else ""
    pairs = (line.partition(":")[::2] for line in first.splitlines())
    return {name.strip(): value.strip() for name, value in pairs}
