"""The proof of a card: before it takes pictures it computes, in about a second, what the CPU computes.

Without it, a card whose kernels do not run would claim images, end its process and count a crash against each image. A
card whose numbers are wrong would spoil them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor

from shared.errors import CardError
from worker.engine import devices, transfers
from worker.engine.devices import Device
from worker.engine.transfers import fetched

# The largest difference, as a share of the largest number. Sound kernels stay far below, also those of float32 that
# compute in TF32 and those of float16 that add in it.
BOUNDS: Final = {torch.float32: 0.005, torch.float16: 0.02, torch.bfloat16: 0.05}
_TOKENS: Final = 77
_MASKED: Final = -10000.0  # what the networks add to attention if there is nothing to see

Compute = Callable[..., Tensor]
Answers = tuple[Tensor, Tensor]  # of the card and of the CPU


@dataclass(frozen=True)
class Check:
    """One thing that pictures need: its name, the number format, and what asks both."""

    name: str
    dtype: torch.dtype
    ask: Callable[[Device, torch.dtype], Answers]


def prove(on: Device, dtype: torch.dtype) -> None:
    """Return when the card has computed what the CPU computes, with networks in `dtype`; a CPU needs no proof.

    It is asked on a thread that ends with it: handles and workspaces, which are a thread's own, go to the next one.

    Raises CardError that says which check failed, why, and what to do.
    """
    if on.kind == "cpu":
        return
    with ThreadPoolExecutor(1, thread_name_prefix="proof") as thread:
        thread.submit(_prove, on, dtype).result()
    devices.release_memory()


@torch.inference_mode()
def _prove(on: Device, dtype: torch.dtype) -> None:
    devices.enter(on)
    for check in _checks(dtype, devices.decoder_dtype(on, dtype)):
        what = f"{on.label} failed at {check.name} in {str(check.dtype).removeprefix('torch.')}"
        try:
            computed, expected = check.ask(on, check.dtype)
        except Exception as error:  # an edge: with any error the card is not to be used
            raise CardError(f"{what}: {devices.explain(error, on)}") from error
        off, most = _off(computed, expected), BOUNDS.get(check.dtype, 0.0)
        if not off <= most:  # NaN is not
            raise CardError(
                f"{what}: its numbers are off by {off:.1%} of the largest, and {most:.1%} may be: restart the machine; "
                "if that does not help, leave the card out of FARM_GPUS"
            )


def _checks(dtype: torch.dtype, decoder_dtype: torch.dtype) -> tuple[Check, ...]:
    return (
        Check("a copy through pinned memory", torch.uint8, _copied),
        Check("a product of matrices", dtype, _product),
        Check("a convolution", dtype, _convolution),
        Check("attention", dtype, _attention),
        Check("attention with a mask", dtype, _masked_attention),
        Check("the decoder's layers", decoder_dtype, _decoder),
    )


def _copied(on: Device, dtype: torch.dtype) -> Answers:
    """A mebibyte there and back, as latents, noise and pictures travel."""
    there = transfers.pinned(torch.arange(2**20).remainder(251).to(dtype), on)
    return fetched(transfers.to_device(there, on)), there


def _product(on: Device, dtype: torch.dtype) -> Answers:
    return _both(F.linear, on, dtype, _numbers(154, 320), _numbers(640, 320))


def _convolution(on: Device, dtype: torch.dtype) -> Answers:
    def convolved(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=1)

    given = (_numbers(2, 64, 32, 24), _numbers(64, 64, 3, 3))
    return _both(convolved, on, dtype, *(one.to(memory_format=torch.channels_last) for one in given))


def _attention(on: Device, dtype: torch.dtype) -> Answers:
    return _attended(on, dtype, (40, 80, 160))


def _masked_attention(on: Device, dtype: torch.dtype) -> Answers:
    """Of two rows whose contexts have one and two chunks, as pictures of unequal prompts share a call."""
    mask = torch.zeros(2, 1, 1, 2 * _TOKENS)
    mask[0, ..., _TOKENS:] = _MASKED
    return _attended(on, dtype, (40, 160), mask)


def _attended(on: Device, dtype: torch.dtype, widths: tuple[int, ...], *mask: Tensor) -> Answers:
    """Return attention for heads of each of these widths, put together."""
    keys = mask[0].shape[-1] if mask else _TOKENS
    found = [
        _both(
            F.scaled_dot_product_attention,
            on,
            dtype,
            *(_numbers(2, 4, length, width) for length in (96, keys, keys)),
            *mask,
        )
        for width in widths
    ]
    computed, expected = ([one.flatten() for one in some] for some in zip(*found, strict=True))
    return torch.cat(computed), torch.cat(expected)


def _decoder(on: Device, dtype: torch.dtype) -> Answers:
    def block(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(F.silu(F.group_norm(x, 32)), weight, padding=1)

    return _both(block, on, dtype, _numbers(1, 64, 32, 32), _numbers(64, 64, 3, 3))


def _both(compute: Compute, on: Device, dtype: torch.dtype, *given: Tensor) -> Answers:
    """Return what the card computes in `dtype` and what the CPU computes in float32, of the same rounded numbers."""
    rounded = [one.to(dtype) for one in given]
    expected = compute(*(one.float() for one in rounded))
    return compute(*(transfers.to_device(one, on) for one in rounded)).float().cpu(), expected


def _numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _off(computed: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest number; infinite or NaN where a number is."""
    computed, expected = computed.float(), expected.float()
    return float((computed - expected).abs().max() / expected.abs().max())
