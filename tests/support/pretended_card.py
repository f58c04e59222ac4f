"""A pretended CUDA card: the engine's CUDA paths, threads and all, on a build of torch for CPUs.

    with pretended_card.installed() as ledger:
        weights = checkpoints.load(path, devices.device("cuda:0"), torch.float16)
        …
    assert ledger.waits_of("engine") == [] and ledger.errors == []

A tensor of the card is a wrapper that says `cuda:0` and holds a tensor of the CPU (or of meta: shapes alone). Factories
are given Python kernels under the dispatcher's CUDA key, which a CPU build leaves empty, so that `.to`, `zeros` and
similar functions reach it from every thread. Errors and waits of a card are raised or written to the ledger:

- devices and number formats that are mixed are raised, in CUDA's words;
- a read of the card, and each blocking copy is written down with its thread, file and function;
- memory: live, peak, OutOfMemoryError above a capacity; pinned memory as well;
- a copy into pinned memory arrives when an event behind it is waited for: until then it holds NaN or 255;
- what touches memory on one stream while another may still use it, or writes pinned memory that the card still
  fetches from, is an error in the ledger; so is memory that is let go without `record_stream` and taken again;
- half precision is computed in float32 and rounded, float32 loses the bits that TF32 loses where that is allowed.

It cannot show CUDA's own numerics, cuDNN's choices and refusals, or time: for that `card_time` has a model.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, partialmethod
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._device import _device_constructors

from tests.support import card_attention, card_copies, card_memory, card_streams
from tests.support.card_kernels import HANDLERS, Card
from tests.support.card_ledger import LEDGER, Ledger
from tests.support.card_streams import CUDA

__all__ = ["LEDGER", "Card", "install", "installed", "reason_not_to", "uninstall"]

TORCH = "2.13.0"  # whose dispatcher and registry of guards this knows
UUID = "8932f937-d72c-4106-c12f-20bd9faed9f6"
_INSTALLED: list[ExitStack] = []
_PINNING = ("empty", "zeros", "ones", "full", "empty_like", "zeros_like", "empty_strided", "tensor")


def reason_not_to() -> str:
    """Return why there can be no pretended card in this process; "" where there can."""
    if torch.version.cuda or torch.version.hip:
        return "a build of torch for cards has no empty dispatch key to pretend one with"
    if torch.__version__.partition("+")[0] != TORCH:
        return f"the pretended card knows torch {TORCH}, and this is {torch.__version__}"
    return ""


@contextmanager
def installed(*, capacity: int = 80 * 2**30, inner: str = "cpu") -> Iterator[Ledger]:
    """Within the block this process has a pretended card; the ledger begins with an empty page."""
    install(capacity=capacity, inner=inner)
    LEDGER.clear()
    try:
        yield LEDGER
    finally:
        uninstall()


def install(*, capacity: int = 80 * 2**30, inner: str = "cpu") -> None:
    """Give this process a pretended card of `capacity` bytes whose values are on the device `inner`."""
    if reason := reason_not_to():
        raise RuntimeError(reason)
    LEDGER.capacity, LEDGER.inner = capacity, inner
    if _INSTALLED:
        return
    import_module(
        "worker.engine.loading.networks"
    )  # diffusers and transformers look at the machine once, when imported
    _device_constructors()  # remembers the factories that it sees at its first call: let it see torch's own
    HANDLERS.update(card_copies.HANDLERS)
    with ExitStack() as undo:
        guard(undo)
        kernels(undo)
        replace(undo, torch.cuda, FUNCTIONS)
        replace(undo, torch.Tensor, {"pin_memory": card_memory.pin, "is_pinned": card_memory.is_pinned})
        replace(undo, torch.Tensor, {"to": partialmethod(numbered, torch.Tensor.to), "cuda": sent})
        replace(undo, torch.nn.functional, {"scaled_dot_product_attention": card_attention.attention})
        replace(undo, torch, {name: partial(pinning, getattr(torch, name)) for name in _PINNING})
        undo.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)  # what is computed here is tiny, and threads that share it mostly wait for each other
        swapping = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(
            True
        )  # else `Module.to` changes what a wrapper says alone
        undo.callback(torch.__future__.set_swap_module_params_on_conversion, swapping)
        _INSTALLED.append(undo.pop_all())


def uninstall() -> None:
    """Take the pretended card away again; tensors that are left of it can only be deleted."""
    gc.collect()
    LEDGER.settle()
    if _INSTALLED:
        _INSTALLED.pop().close()
    LEDGER.sync_mode, LEDGER.on_kernel, LEDGER.allowed = "default", None, 1.0


def replace(undo: ExitStack, of: Any, names: dict[str, Any]) -> None:
    """Put others in the place of some attributes, until it is undone."""
    for name, value in names.items():
        if name in vars(of):
            undo.callback(setattr, of, name, vars(of)[name])
        else:
            undo.callback(delattr, of, name)
        setattr(of, name, value)


def guard(undo: ExitStack) -> None:
    """Put the CPU's device guard, which does nothing, in the place of CUDA's, which a CPU build has not.

    Indexing and `contiguous()`, for example, ask for it.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * 2).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    undo.callback(guards.__setitem__, 1, guards[1])
    guards[1] = guards[0]


def kernels(undo: ExitStack) -> None:
    """Register what makes tensors under the dispatcher's key of CUDA."""
    library = torch.library.Library("aten", "IMPL")
    undo.callback(library._destroy)
    library.impl("empty.memory_format", empty, "CUDA")
    library.impl("empty_strided", empty_strided, "CUDA")
    for form in ("arange", "arange.start", "arange.start_step"):
        library.impl(form, arange, "CUDA")


def empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> Card:
    layout = memory_format or torch.contiguous_format
    return Card(PLAIN_EMPTY(size, dtype=dtype, device=LEDGER.inner, memory_format=layout))


def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Card:
    return Card(PLAIN_EMPTY_STRIDED(size, stride, dtype=dtype, device=LEDGER.inner))


def arange(*ends: Any, dtype: Any = None, **_: Any) -> Card:
    return Card(torch.arange(*ends, dtype=dtype, device=LEDGER.inner))


PLAIN_EMPTY, PLAIN_EMPTY_STRIDED = torch.empty, torch.empty_strided


def pinning(make: Any, *arguments: Any, pin_memory: bool = False, **options: Any) -> Any:
    """A factory of torch that can make pinned memory."""
    made = make(*arguments, **options)
    return card_memory.pin(made) if pin_memory else made


def numbered(tensor: Tensor, to: Any, *arguments: Any, **options: Any) -> Any:
    """`Tensor.to`, where "cuda" is "cuda:0": the guard that stands in knows no current card."""
    arguments = tuple(CUDA if is_bare(one) else one for one in arguments)
    return to(tensor, *arguments, **{name: CUDA if is_bare(one) else one for name, one in options.items()})


def is_bare(device: Any) -> bool:
    return isinstance(device, str | torch.device) and str(device) == "cuda"


def sent(tensor: Tensor, device: Any = None, *, non_blocking: bool = False) -> Any:
    return tensor.to(device or CUDA, non_blocking=non_blocking)


def properties(_: object = None) -> SimpleNamespace:
    return SimpleNamespace(
        name="pretended", total_memory=LEDGER.capacity, major=9, minor=0, uuid=UUID, multi_processor_count=132
    )


def free_and_total(_: object = None) -> tuple[int, int]:
    return LEDGER.capacity - LEDGER.live, LEDGER.capacity


def live(_: object = None) -> int:
    return LEDGER.live


def peak(_: object = None) -> int:
    return LEDGER.peak


def reset_peak(_: object = None) -> None:
    LEDGER.peak = LEDGER.live


def allow(fraction: float, _: object = None) -> None:
    LEDGER.allowed = fraction


def sleep(cycles: int) -> None:
    """Stand still for that long, at 1.98 GHz: here the thread that asks, since what comes next waits for it."""
    time.sleep(cycles / 1.98e9)


def set_sync_debug_mode(mode: int | str) -> None:
    LEDGER.sync_mode = ("default", "warn", "error")[mode] if isinstance(mode, int) else mode


def nothing(*_: object, **__: object) -> None:
    """Does nothing: it has no effect on a pretended card."""


FUNCTIONS: dict[str, Any] = {
    "_lazy_init": nothing,
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": nothing,
    "_exchange_device": lambda _: 0,
    "_maybe_exchange_device": lambda _: 0,
    "is_bf16_supported": lambda including_emulation=True: True,
    "get_device_name": lambda _=0: "pretended",
    "get_device_capability": lambda _=0: (9, 0),
    "get_device_properties": properties,
    "manual_seed": nothing,
    "manual_seed_all": nothing,
    "empty_cache": card_streams.empty_cache,
    "memory_allocated": live,
    "memory_reserved": live,
    "max_memory_allocated": peak,
    "max_memory_reserved": peak,
    "reset_peak_memory_stats": reset_peak,
    "mem_get_info": free_and_total,
    "memory_stats": lambda _=None: {"num_ooms": LEDGER.ooms},
    "host_memory_stats": lambda: {"allocated_bytes.current": sum(LEDGER.pinned.values())},
    "set_per_process_memory_fraction": allow,
    "_sleep": sleep,
    "set_sync_debug_mode": set_sync_debug_mode,
    "get_sync_debug_mode": lambda: ("default", "warn", "error").index(LEDGER.sync_mode),
    "synchronize": card_streams.synchronize,
    "Stream": card_streams.Stream,
    "Event": card_streams.Event,
    "stream": card_streams.use,
    "current_stream": card_streams.current_stream,
    "default_stream": card_streams.default_stream,
    "set_stream": card_streams.set_stream,
}
