"""The proof of a card: before it takes pictures, it computes the same as the CPU, in about a second.

Without it, a card whose kernels do not run would claim images, end its process, and count a crash for each of them; a
card with wrong numbers would spoil them.
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
from shared.prompts.tokenizer import TOKENS
from worker.engine import devices, transfers
from worker.engine.devices import Device
from worker.engine.transfers import fetched

# The largest difference, as a share of the largest number. Sound kernels stay far below it, also float32 kernels that
# compute in TF32 and float16 kernels that add in float16.
BOUNDS: Final = {torch.float32: 0.005, torch.float16: 0.02, torch.bfloat16: 0.05}
_MASKED: Final = -10000.0  # what the networks add to attention at masked places

Compute = Callable[..., Tensor]
Answers = tuple[Tensor, Tensor]  # of the card and of the CPU


@dataclass(frozen=True)
class Check:
    """One operation that pictures need: its name, its number format, and a function that asks card and CPU."""

    name: str
    dtype: torch.dtype
    ask: Callable[[Device, torch.dtype], Answers]


def prove(on: Device, dtype: torch.dtype) -> None:
    """Return when the card has computed the same as the CPU, with networks in `dtype`; a CPU needs no proof.

    Runs on a thread of its own, so that the handles and workspaces of that thread are free again afterwards. Raises
    CardError that says which check failed, why, and what to do.
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
        failed = f"{on.label} failed at {check.name} in {str(check.dtype).removeprefix('torch.')}"
        try:
            computed, expected = check.ask(on, check.dtype)
        except Exception as error:  # an edge: after any error the card must not be used
            raise CardError(f"{failed}: {devices.explain(error, on)}") from error
        off, most = largest_difference(computed, expected), BOUNDS.get(check.dtype, 0.0)
        if not off <= most:  # also for NaN
            raise CardError(
                f"{failed}: its numbers are off by {off:.1%} of the largest, and {most:.1%} may be: restart the "
                "machine; if that does not help, leave the card out of FARM_GPUS"
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
    """Copy a mebibyte there and back, as latents, noise and pictures are copied."""
    there = transfers.pinned(torch.arange(2**20).remainder(251).to(dtype), on)
    return fetched(transfers.to_device(there, on)), there


def _product(on: Device, dtype: torch.dtype) -> Answers:
    return _both(F.linear, on, dtype, _numbers(154, 320), _numbers(640, 320))


def _convolution(on: Device, dtype: torch.dtype) -> Answers:
    def convolved(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=1)

    arguments = (_numbers(2, 64, 32, 24), _numbers(64, 64, 3, 3))
    return _both(convolved, on, dtype, *(one.to(memory_format=torch.channels_last) for one in arguments))


def _attention(on: Device, dtype: torch.dtype) -> Answers:
    return _attended(on, dtype, (40, 80, 160))


def _masked_attention(on: Device, dtype: torch.dtype) -> Answers:
    """Attend in two rows whose contexts have one and two chunks, as pictures with unequal prompts share a call."""
    mask = torch.zeros(2, 1, 1, 2 * TOKENS)
    mask[0, ..., TOKENS:] = _MASKED
    return _attended(on, dtype, (40, 160), mask)


def _attended(on: Device, dtype: torch.dtype, widths: tuple[int, ...], *mask: Tensor) -> Answers:
    """Return attention for heads of each of these widths, concatenated."""
    keys = mask[0].shape[-1] if mask else TOKENS
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


def _both(compute: Compute, on: Device, dtype: torch.dtype, *arguments: Tensor) -> Answers:
    """Return the answers of the card in `dtype` and of the CPU in float32, for the same rounded numbers."""
    rounded = [one.to(dtype) for one in arguments]
    expected = compute(*(one.float() for one in rounded))
    return compute(*(transfers.to_device(one, on) for one in rounded)).float().cpu(), expected


def _numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def largest_difference(computed: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest number; infinite or NaN if a number is."""
    computed, expected = computed.float(), expected.float()
    return float((computed - expected).abs().max() / expected.abs().max())
