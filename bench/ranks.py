"""What the rank of low-rank adapters costs by rows, and where it would be cheaper to merge them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import torch

from tests.support import low_rank
from worker.engine.adapters.low_rank import LowRank
from worker.engine.answers.denoising import denoise
from worker.engine.architectures.conditioning import Applied
from worker.engine.architectures.weights import Weights
from worker.engine.loading.batch_invariant import make_batch_invariant
from worker.engine.requests import Denoise, Term
from worker.engine.row_limits import RowLimits

RANKS: Final = (8, 32, 128, 256)
ROWS: Final = 8  # of a call
PICTURE: Final = 2 * 20  # rows and steps
Merged = tuple[LowRank, float, float]  # with its weights in the text encoders and in the U-Net


@contextmanager
def patched(weights: Weights, adapters: Sequence[Merged]) -> Iterator[None]:
    """Within the block, adapters are added to the weights, as other programs do; afterwards the old weights return."""
    before: dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]] = {}  # with what was there
    encoders = [(one.name, one.network) for one in weights.text_encoders]
    with torch.inference_mode():
        for adapter, of_texts, of_unet in adapters:
            for name, network, weight in (("unet", weights.unet, of_unet), *((*one, of_texts) for one in encoders)):
                for path, (down, up) in adapter.networks.get(name, {}).items():
                    layer = network.get_submodule(path).get_parameter("weight").data
                    before.setdefault((name, path), (layer, layer.clone()))
                    layer += weight * (up @ down.flatten(1)).view(layer.shape)
    yield
    for layer, kept in before.values():
        layer.copy_(kept)


def wide(weights: Weights, row_limits: RowLimits) -> Weights:
    """Return `weights` with a random U-Net as wide as Stable Diffusion 1's two first levels, but not as deep."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: PLC0415 - takes seconds
    from diffusers.utils import logging  # noqa: PLC0415 - as above

    logging.set_verbosity_error()  # it warns of modules that are to stay in float32: none
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(320, 640),
        layers_per_block=1,
        cross_attention_dim=768,
        attention_head_dim=8,  # their number
    )
    unet.eval().requires_grad_(requires_grad=False).to(
        weights.device.torch, weights.dtype, memory_format=torch.channels_last
    )
    if weights.device.kind == "cpu":
        make_batch_invariant(unet, row_limits)
    return replace(weights, unet=unet)


def table(weights: Weights, side: int, times: int = 2) -> str:
    """Return what adapters of each rank cost in calls of ROWS rows of pictures of `side` pixels, beside other ways.

    Each two rows have an adapter of their own. All figures are multiples of a row without adapters in such a call.
    """
    by_rank = {rank: [low_rank.drawn(weights, seed, rank, texts=False) for seed in range(ROWS // 2)] for rank in RANKS}
    calls = {"alone": _call(weights, side, [()] * 2), "none": _call(weights, side, [()] * ROWS)}
    for rank, adapters in by_rank.items():
        calls[f"{rank}"] = _call(weights, side, [(Applied(one, 1.0),) for one in adapters for _ in range(2)])
        calls[f"{rank} merged"] = partial(_merge, weights, adapters[0])
    seconds = medians(calls, times)
    row = seconds["none"] / ROWS
    alone = seconds["alone"] / 2 / row
    lines = [
        "| rank | by rows, in company | merged, in calls of its own two rows | the merge itself |",
        "| --- | --- | --- | --- |",
    ]
    for rank in RANKS:
        merge = seconds[f"{rank} merged"] / row
        by_rows = seconds[f"{rank}"] / seconds["none"]
        lines.append(f"| {rank} | {by_rows:.2f} | {alone + merge / PICTURE:.2f} | {merge:.2f} |")
    return "\n".join(lines)


def medians(calls: dict[str, Callable[[], object]], times: int) -> dict[str, float]:
    """Return the median of the processor seconds of each of `calls`, which take turns."""
    for name in ("alone", "none"):  # measures how many rows round alike
        calls[name]()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(times):
        for name, call in calls.items():
            found[name].append(timed(call))
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that `call` takes: of the host's cores, or of a card."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started


def _call(weights: Weights, side: int, rows: Sequence[tuple[Applied, ...]]) -> Callable[[], object]:
    """Return a call of the U-Net with a row for each of `rows`."""
    blank, cell = weights.architecture.blank(weights.unet), weights.latent.cell
    x = torch.randn(weights.latent.channels, side // cell, side // cell, device=weights.device.torch)
    terms = tuple(Term(1 / len(rows), blank.adapted(one)) for one in rows)
    return partial(denoise, [Denoise(weights, x, 3.0, terms, 1, 1)], is_exact=False)


def _merge(weights: Weights, adapter: LowRank) -> None:
    with patched(weights, [(adapter, 0.0, 1.0)]):
        pass
