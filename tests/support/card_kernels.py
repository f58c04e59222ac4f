"""Tensors of the pretended card, and what is done with them: checked as CUDA checks it, computed on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from tests.support.card_costs import NO_KERNEL, cost
from tests.support.card_ledger import LEDGER, Kernel
from tests.support.card_streams import CUDA, current_stream, record_stream, waited_for

aten = torch.ops.aten
HALVES = (torch.float16, torch.bfloat16)
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
PRODUCTS = {aten.addmm, aten.mm, aten.bmm, aten.baddbmm, aten.convolution, aten._convolution, aten.linear}
ALIKE = PRODUCTS | {aten.native_group_norm, aten.native_layer_norm}  # CUDA wants one number format for all arguments
WAITING = {aten.nonzero, aten.masked_select, aten._unique2, aten.equal, aten.is_nonzero, aten.unique_dim}
TAKES_INDICES = {aten.index, aten.index_put, aten.index_put_}  # which may lie on the host
TF32_BITS = 13  # of float32's mantissa that tensor cores drop
_LISTS = (list, tuple)
_HOLDERS = (Tensor, list, tuple, dict)


HANDLERS: dict[Any, Callable[..., Any]] = {}  # operations that are more than a kernel: copies


class Share:
    """A tensor's share in the memory below it, as long as it lives."""

    def __init__(self, inner: Tensor) -> None:
        storage = inner.untyped_storage()
        self.block = LEDGER.take(storage._cdata, storage.nbytes(), current_stream().stream_id)
        self._inner = inner  # its storage's address is the key in the books: nobody else may have it meanwhile

    def __del__(self) -> None:
        if hasattr(self, "_inner"):
            LEDGER.give_back(self.block)


class Card(torch.Tensor):
    """A tensor that says it is on `cuda:0`; its values are in `value`."""

    value: Tensor
    share: Share
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment] # else what is copied to the host becomes a Card

    @staticmethod
    def __new__(cls, inner: Tensor) -> Self:
        self: Self = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=torch.strided, device=CUDA, requires_grad=False,
        )  # fmt: skip
        self.value = inner
        self.share = Share(inner)
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        kwargs, asked = kwargs or {}, facts(func)
        if asked.handler:
            return asked.handler(func, args, kwargs)
        if asked.is_composite:  # in inference mode they come here as they are
            return func._op_dk(COMPOSITE, *args, **kwargs)  # C++'s way: Python's decompositions copy where it does not
        return run(func, args, kwargs)

    record_stream = record_stream  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Card({tuple(self.shape)}, {self.dtype})"


class Facts(NamedTuple):
    """What the checks and the books ask of each operation, looked up once."""

    packet: Any
    handler: Callable[..., Any] | None
    is_composite: bool
    is_view: bool
    is_in_place: bool
    is_kernel: bool
    is_pointwise: bool
    is_alike: bool
    is_waiting: bool
    takes_indices: bool


@cache
def facts(func: Any) -> Facts:
    packet, name = func.overloadpacket, func.__name__.split(".")[0]
    is_view = any(result.alias_info and not result.alias_info.is_write for result in func._schema.returns)
    return Facts(
        packet,
        HANDLERS.get(packet),
        torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE),
        is_view,
        name.endswith("_") and not name.startswith("_"),
        not (is_view or packet in NO_KERNEL),
        torch.Tag.pointwise in func.tags,
        packet in ALIKE,
        packet in WAITING,
        packet in TAKES_INDICES,
    )


def inside(value: Any) -> Any:
    return value.value if isinstance(value, Card) else value


def wrapped(value: Any) -> Any:
    return Card(value) if isinstance(value, Tensor) and not isinstance(value, Card) else value


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return the arguments or results of an operation with each tensor in them changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, _LISTS):
        return type(value)([mapped(change, one) if isinstance(one, _HOLDERS) else one for one in value])
    return {name: mapped(change, one) for name, one in value.items()} if isinstance(value, dict) else value


def tensors_in(*values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, _LISTS):
            found += tensors_in(*value)
    return found


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """Any operation: checked as CUDA checks it, done on the CPU, written down."""
    asked, given = facts(func), tensors_in(*args, *kwargs.values())
    check_devices(func, given)
    if asked.is_alike:
        check_formats(func, given)
    if LEDGER.on_kernel and asked.is_kernel:
        LEDGER.on_kernel(asked.packet.__name__, given)
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": LEDGER.inner}
    with torch._C._AutoDispatchBelowAutograd():
        found = computed(func, mapped(inside, args), mapped(inside, kwargs))
    result, written = results(func, args, kwargs, found)
    if asked.is_kernel:
        note_kernel(func, given, tensors_in(written))
    if asked.is_waiting or (asked.takes_indices and any(one.dtype == torch.bool for one in given[1:])):
        waits(asked.packet.__name__)
    return result


def results(func: Any, args: Any, kwargs: Any, found: Any) -> tuple[Any, Any]:
    """What an operation returns, and what it has written."""
    if facts(func).is_in_place:
        return args[0], args[0]
    if "out" in kwargs:
        return kwargs["out"], kwargs["out"]
    base = args[0] if args and isinstance(args[0], Card) else None
    # A view of what was made outside of inference mode, as weights are, is not an inference tensor either.
    if base is None or not (facts(func).is_view and torch.is_inference_mode_enabled()) or base.is_inference():
        result = mapped(wrapped, found)
    else:
        with torch.inference_mode(mode=False):
            result = mapped(wrapped, found)
    return result, result


def note_kernel(func: Any, given: list[Tensor], written: list[Tensor]) -> None:
    """Write down what a kernel reads, writes and costs; a view is none."""
    if not facts(func).is_kernel:
        return
    stream = current_stream().stream_id
    LEDGER.begin(stream, blocks(given), blocks(written))
    LEDGER.count(stream, cost(func.overloadpacket, given, written))


def blocks(tensors: list[Tensor]) -> list[Any]:
    return [one.share.block for one in tensors if isinstance(one, Card)]


def waits(what: str) -> None:
    """This thread stands still until its stream is done."""
    LEDGER.wait(what)
    waited_for(current_stream())


# What CUDA refuses.


def check_devices(func: Any, tensors: list[Tensor]) -> None:
    strangers = [one for one in tensors if not isinstance(one, Card) and one.device.type == "cpu"]
    if not strangers or facts(func).takes_indices:
        return
    if facts(func).is_pointwise and all(one.dim() == 0 for one in strangers):
        return
    fail(f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({func})")


def check_formats(func: Any, tensors: list[Tensor]) -> None:
    formats = {one.dtype for one in tensors if one.is_floating_point()}
    if len(formats) > 1:
        fail(f"expected all arguments of {func} to have one number format, got {sorted(map(str, formats))}")


def fail(words: str) -> None:
    LEDGER.error(words)
    raise RuntimeError(words)


# How CUDA computes.


def computed(func: Any, args: Any, kwargs: Any) -> Any:
    """The result of an operation, rounded and laid out as on a card."""
    packet = func.overloadpacket
    if packet in (aten.convolution, aten.native_group_norm):
        args = laid_out(packet, args)
    if packet in ALIKE and LEDGER.inner == "cpu":
        found = rounded(packet, partial(func, **kwargs), args)
    else:
        found = func(*args, **kwargs)
    if packet is aten.convolution and is_last(args[0]) | is_last(args[1]):
        found = found.contiguous(memory_format=torch.channels_last)  # as cuDNN gives it
    return found


def rounded(packet: Any, func: Callable[..., Any], args: Any) -> Any:
    """Half precision is added in float32 and rounded once; float32 loses bits first where TF32 is allowed."""
    half = next((one.dtype for one in tensors_in(args) if one.dtype in HALVES), None)
    if half:
        found = func(*mapped(partial(changed, HALVES, torch.Tensor.float), args))
        return mapped(lambda one: one.to(half), found)
    if packet in PRODUCTS and is_tf32(packet):
        return func(*mapped(partial(changed, (torch.float32,), to_tf32), args))
    return func(*args)


def changed(dtypes: tuple[torch.dtype, ...], change: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    return change(value) if value.dtype in dtypes else value


def is_tf32(packet: Any) -> bool:
    backends: Any = torch.backends
    unit = backends.cudnn.conv if "convolution" in packet.__name__ else backends.cuda.matmul
    return str(unit.fp32_precision) == "tf32"


def to_tf32(value: Tensor) -> Tensor:
    bits = value.contiguous().view(torch.int32)
    return (((bits + (1 << (TF32_BITS - 1))) >> TF32_BITS) << TF32_BITS).view(torch.float32).view_as(value)


def laid_out(packet: Any, args: Any) -> Any:
    """The copies that ATen's CUDA kernels make unasked: group norm reads NCHW, a convolution what its weight is in."""
    x, others = args[0], args[1:]
    if packet is aten.native_group_norm and not x.is_contiguous():
        hidden_copy("layout: group_norm reads NCHW", x)
        x = x.contiguous()
    is_other = x.dim() == 4 and not x.is_contiguous(memory_format=torch.channels_last)
    if packet is aten.convolution and is_other and is_last(others[0]):
        hidden_copy("layout: conv reads NHWC", x)
        x = x.contiguous(memory_format=torch.channels_last)
    return (x, *others)


def hidden_copy(what: str, x: Tensor) -> None:
    LEDGER.count(current_stream().stream_id, Kernel(what, "strided", 0, 2 * x.nbytes))


def is_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
