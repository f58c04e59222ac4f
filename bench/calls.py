"""`python -m bench.calls`: what calls of full-size networks take of a card, counted without one.

The engine answers requests on the pretended card with networks whose weights have shapes and no values: Stable
Diffusion 1 and XL at their native sizes, U-Net and text encoders in float16. Kernels, arithmetic, bytes read and
written and the peak of memory are counted. The milliseconds are those of a model of an H100 in half precision, not
measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import torch

from tests.support import full_size, pretended_card
from tests.support.card_kernels import Card
from tests.support.card_ledger import Kernel, Ledger
from tests.support.card_time import GAP, kernel_seconds
from worker.engine import devices
from worker.engine.answers.answer import answer
from worker.engine.answers.calls import Calls
from worker.engine.architectures.weights import Weights
from worker.engine.devices import MemoryPeak
from worker.engine.requests import Denoise, Embed, Request, Term, ToLatent, ToPixels

ROWS: Final = (2, 8, 16)
CAPACITY: Final = 2**50  # bytes: nothing is out of memory
IN_FLOAT32: Final = "in float32"
TITLES: Final = ("call", "kernels", "TFLOP", "GB moved", "peak GiB", "ms")


class Cost(NamedTuple):
    """What one call takes of a card."""

    kernels: int
    flops: float
    bytes: int  # read and written
    peak_bytes: int  # above what was there before the call
    seconds: float  # on an H100, by the model of time, which is one of half precision


def table(ledger: Ledger, name: str) -> Iterator[tuple[str, Cost]]:
    """Yield the name and the cost of each call of an architecture, on a pretended card without values."""
    weights, precise = full_size.weights(name, torch.float16), full_size.weights(name, torch.float32)
    side = weights.native_size
    devices.enter(weights.device)
    yield "embed, a prompt and a negative one", cost(ledger, embeds(weights))
    for rows in ROWS:
        yield f"denoise, {rows} rows of {side} x {side}", cost(ledger, denoises(weights, rows))
    yield "encode, in half precision", cost(ledger, [ToLatent(weights, _blank(3, side, side))])
    yield "decode, in half precision", cost(ledger, [decode(weights)])
    yield f"decode, {IN_FLOAT32}", cost(ledger, [decode(precise)])
    yield f"decode once more, {IN_FLOAT32}", cost(ledger, [decode(weights, is_precise=True)])


def cost(ledger: Ledger, requests: Sequence[Request]) -> Cost:
    """Return what the one call for `requests` takes; raises its error if it fails."""
    peak, work = MemoryPeak(torch.device("cuda:0")), list[Kernel]()
    ledger.work = work
    try:
        answer(requests, is_exact=False, calls=Calls(halves=False))
    finally:
        ledger.work = None
    return Cost(
        kernels=len(work),
        flops=sum(kernel.flops for kernel in work),
        bytes=sum(kernel.bytes for kernel in work),
        peak_bytes=peak.bytes(),
        seconds=sum(kernel_seconds(kernel) + GAP for kernel in work),
    )


def embeds(weights: Weights) -> list[Embed]:
    """Return the requests for the texts of one picture."""
    return [Embed(weights, weights.tokenizer.chunks(text)) for text in ("a red sailboat at sea", "")]


def denoises(weights: Weights, rows: int) -> list[Denoise]:
    """Return the requests of so many rows: two a picture, as guidance takes them."""
    blank = weights.architecture.blank(weights.unet)
    terms = Term(7.0, blank), Term(-6.0, blank)
    return [Denoise(weights, _latent(weights), 1.0, terms, 1, 20) for _ in range(rows // 2)]


def decode(weights: Weights, *, is_precise: bool = False) -> ToPixels:
    """Return the request for a picture of the native size."""
    return ToPixels(weights, _latent(weights), is_precise=is_precise)


def _latent(weights: Weights) -> Card:
    cells = weights.native_size // weights.latent.cell
    return _blank(weights.latent.channels, cells, cells)


def _blank(*shape: int) -> Card:
    return Card(torch.empty(shape, device="meta"))


def main() -> None:
    """Print the table of both architectures."""
    with pretended_card.installed(inner="meta", capacity=CAPACITY) as ledger:
        for name in ("sdxl", "sd1"):
            sys.stdout.write(f"\n| {name}: {' | '.join(TITLES)} |\n|{' --- |' * len(TITLES)}\n")
            for call, found in table(ledger, name):
                figures = f"{found.kernels:,} | {found.flops / 1e12:.2f} | {found.bytes / 1e9:.1f}"
                seconds = "" if call.endswith(IN_FLOAT32) else f"{1e3 * found.seconds:.0f}"
                sys.stdout.write(f"| {call} | {figures} | {found.peak_bytes / 2**30:.2f} | {seconds} |\n")


if __name__ == "__main__":
    main()
