"""The one module that asks about devices: what a card is, what it takes at once, and when it has run out of memory."""

from __future__ import annotations

import errno
import math
import platform
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor

from shared.errors import CardError, OutOfMemory, SettingsError
from shared.portions import Processor
from worker.engine import cuda_errors
from worker.engine.loading.portions import Portions

CPU_ROWS: Final = 16
TURNS_AHEAD: Final = 2
_LADDER: Final = (1, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32)
_CARD_ROWS: Final = ((40, 32), (10, 16), (6, 8), (0, 4))  # GiB of the card -> rows where nothing is gained by more
_OUT_OF_MEMORY: Final = 2  # cudaErrorMemoryAllocation
# CUDA errors after which the card goes on answering: an invalid value or configuration, an invalid function or kernel
# for this card, and what it does not support. After all others every call fails, until the process is another.
_HARMLESS: Final = frozenset({1, _OUT_OF_MEMORY, 9, 98, 209, 801})
# What says so without a type of its own: the host's allocator, CUDA and its driver, and the libraries upon them.
_FULL: Final = re.compile(r"DefaultCPUAllocator|CUDA (driver )?error: out of memory|\bCU[A-Z]+_STATUS_\w*ALLOC")
_FORMATS: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Device:
    """One card, or a share of the CPU: `cuda:0`, `cpu:0`. Shares of the CPU are told apart by their names alone."""

    name: str
    kind: Literal["cpu", "cuda"]
    label: str  # what people call it
    memory_bytes: int  # 0: not its own
    portions: Portions | None = field(default=None, compare=False, repr=False)  # of a CPU, where they are kept

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
        """Chunks of texts that one call should hold at most: one fills a CPU, where it then never rounds by others."""
        return 1 if self.kind == "cpu" else self.row_budget

    @property
    def ladder(self) -> tuple[int, ...]:
        """How many rows a call may have, rising; empty: any number.

        A card prepares kernels for every number that it has not met, which holds up all pictures.
        """
        return () if self.kind == "cpu" else _LADDER

    @property
    def slots(self) -> int:
        """Pictures to have in flight: on a card half as many again as fill its rows, so that none waits for a slot."""
        pictures = self.row_budget // 2  # guidance takes two rows a picture
        return pictures if self.kind == "cpu" else math.ceil(1.5 * pictures)


def device(card: str) -> Device:
    """Return the device called `card`: `cpu`, `cpu:N` or `cuda:N`.

    Raises CardError that says why where there is none such, or none that answers.
    """
    kind, _, number = card.partition(":")
    if kind == "cpu":
        return Device(f"cpu:{number or 0}", "cpu", _cpu_label(), 0)
    if kind != "cuda" or not (number or "0").isdecimal():
        raise CardError(f"there is no card {card!r} here: accepted are cpu, cpu:1, cuda:0")
    if why := why_none():
        raise CardError(why)
    if int(number or 0) >= (count := torch.cuda.device_count()):
        raise CardError(f"there is no card {card!r} here: CUDA sees {count}")
    try:
        facts = torch.cuda.get_device_properties(int(number or 0))
    except RuntimeError as error:  # of a card that is there and takes nobody
        raise CardError(cuda_errors.failed(error)) from error
    return Device(f"cuda:{number or 0}", "cuda", facts.name, facts.total_memory)


def enter(on: Device) -> None:
    """Let the calling thread's work go to `on`: a thread that says nothing speaks to the first card."""
    if on.kind == "cuda":
        torch.cuda.set_device(on.torch)
        torch.backends.cuda.enable_cudnn_sdp(enabled=False)  # it builds a graph for every new shape: 20 ms and more
        _keep_float32_whole()


def _keep_float32_whole() -> None:
    """Have cards multiply float32 as IEEE says: by default their convolutions read 10 of its 23 bits (TF32).

    Where all else is in half precision, it is for the VAE that is asked once more because it overflowed.
    """
    backends: Any = torch.backends  # torch's stubs know nothing of the settings below
    backends.cudnn.allow_tf32 = False  # the older name of the same: torch wants both to agree
    backends.cuda.matmul.allow_tf32 = False
    for operation in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul):
        operation.fp32_precision = "ieee"


def why_none() -> str:
    """Return why this process has no card, and what to do about it; "" where it has one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch warns of is what is told
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
    if is_out_of_memory(error):
        return f"its memory is full: end what else runs on it (`nvidia-smi` tells) ({cuda_errors.failed(error)})"
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
    has_bfloat16 = on.kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if dtype != torch.float32 and has_bfloat16 else torch.float32


def pinned(tensor: Tensor, to: Device) -> Tensor:
    """Return `tensor` in memory that the card fetches by itself while the host goes on; where the host pins no more,
    as it is.
    """
    return tensor if to.kind == "cpu" else _if_pinnable(tensor.pin_memory, lambda: tensor)


def sent(tensor: Tensor, to: Device) -> Tensor:
    """Return `tensor`, made on the host, on the card, without waiting for what the card does before."""
    return tensor.to(to.torch, non_blocking=True)


def pinned_memory(size: int, to: Device) -> Tensor:
    """Return `size` bytes of the host, uint8: on a card such as `staging` returns."""
    return torch.empty(size, dtype=torch.uint8) if to.kind == "cpu" else staging((size,), torch.uint8)


def staging(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return memory of the host that a card reads and writes by itself; where the host pins no more, such as it has."""
    make = partial(torch.empty, shape, dtype=dtype)
    return _if_pinnable(partial(make, pin_memory=True), make)


def _if_pinnable(pin: Callable[[], Tensor], plain: Callable[[], Tensor]) -> Tensor:
    try:
        return pin()
    except RuntimeError as error:
        if is_fatal(error):
            raise
    return plain()


def release_pinned_memory() -> None:
    """Give pinned memory that nothing uses back to the host."""
    if torch.accelerator.is_available():
        torch.accelerator.empty_host_cache()


def free_bytes(on: Device) -> int | None:
    """Return what the card could still be asked for, what is cached for that included; None: nobody can tell."""
    if on.kind == "cpu":
        return None
    free, _ = torch.cuda.mem_get_info(on.torch)
    return free + torch.cuda.memory_reserved(on.torch) - torch.cuda.memory_allocated(on.torch)


@contextmanager
def own_stream(on: Device) -> Iterator[None]:
    """Within the block this thread's work on the card goes beside that of the other threads; it is entered first."""
    if on.kind == "cpu":
        yield
        return
    enter(on)
    with torch.cuda.stream(torch.cuda.Stream(on.torch)):
        yield


def marked() -> torch.cuda.Event:
    """Return the mark of what this thread has told the card so far; its `synchronize` sleeps until that is done."""
    mark = torch.cuda.Event(blocking=True)
    mark.record()
    return mark


def read_into(memory: Tensor, source: Tensor) -> None:
    """Copy `source`, on the card, to `memory` of the host; return when it is there, having slept if that is pinned."""
    memory.copy_(source, non_blocking=True)
    marked().synchronize()


def hand_over(tensors: Iterable[Tensor], on: Device) -> None:
    """Return when `tensors`, made in this thread's order, are done; from then on the engine's work may use them.

    Whoever waits sleeps. The engine's stream need not wait for what is done, but no memory is given to others that it
    still reads.
    """
    marked().synchronize()
    engines = torch.cuda.default_stream(on.torch)
    for tensor in tensors:
        tensor.record_stream(engines)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out, on the card or on the host, whichever allocator it was."""
    if isinstance(error, OutOfMemory | torch.OutOfMemoryError | MemoryError) or _code(error) == _OUT_OF_MEMORY:
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _FULL.search(str(error)) is not None


def release_memory() -> None:
    """Give cached memory back to the card, so that a smaller call finds room."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class MemoryPeak:
    """The most memory that this process has taken of a card since a moment, above what it had then."""

    def __init__(self, device: torch.device) -> None:
        torch.cuda.reset_peak_memory_stats(device)
        self._device = device
        self._before = torch.cuda.memory_allocated(device)

    @classmethod
    def since_now(cls, on: Device) -> MemoryPeak | None:
        """Return the peak from now on; None where the device cannot tell."""
        return cls(on.torch) if on.kind == "cuda" else None

    def bytes(self) -> int:
        """Return how much more it was at most than at the beginning."""
        return torch.cuda.max_memory_allocated(self._device) - self._before


def is_fatal(error: BaseException) -> bool:
    """Return whether after `error` the card answers nothing any more, so that only a new process helps."""
    if not isinstance(error, torch.AcceleratorError) or is_out_of_memory(error):
        return False
    return _code(error) not in _HARMLESS


def _code(error: BaseException) -> int | None:
    """The CUDA error that a call ended with; None where it ended otherwise, or does not say."""
    return getattr(error, "error_code", None) if isinstance(error, torch.AcceleratorError) else None


class Pace:
    """Keeps the host a turn or two ahead of the card, so that it never waits for Python; a CPU is never behind."""

    def __init__(self, on: Device) -> None:
        self._on = on
        self._turns: deque[torch.cuda.Event] = deque()

    def turn(self) -> None:
        """Mark the end of a turn; return when the card has come within two turns of it."""
        if self._on.kind == "cpu":
            return
        self._turns.append(marked())  # to wait asleep: a core that spins is one that encodes no picture
        if len(self._turns) > TURNS_AHEAD:
            self._turns.popleft().synchronize()

    def stop(self) -> None:
        """Return when the card has done all that it was asked in turns."""
        while self._turns:
            self._turns.popleft().synchronize()


def processor() -> Processor:
    """Return what decides how this process's calls round on the CPU."""
    facts = _cpu_facts()
    model = "-".join(facts[name] for name in ("cpu family", "model", "stepping") if name in facts)
    features = sha256(" ".join(sorted(facts.get("flags", "").split())).encode()).hexdigest()[:8]
    name = f"{_cpu_label()} ({', '.join(filter(None, (model, torch.backends.cpu.get_cpu_capability(), features)))})"
    return Processor(name, torch.get_num_threads(), torch.__version__)


def _cpu_label() -> str:
    return _cpu_facts().get("model name") or platform.machine()


def _cpu_facts() -> dict[str, str]:
    """What the system tells of the first processor; nothing where it does not."""
    facts = Path("/proc/cpuinfo")
    first = facts.read_text(encoding="utf-8").partition("\n\n")[0] if facts.exists() else ""
    pairs = (line.partition(":")[::2] for line in first.splitlines())
    return {name.strip(): value.strip() for name, value in pairs}
