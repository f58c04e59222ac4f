"""The same work by diffusers, in the same run on the same card."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from bench import plain
from bench.card import clocks, files, rendering
from bench.card.bench import Bench

BATCHES: Final = (1, 8, 16)  # that diffusers is measured with
LARGER_BATCHES: Final = (1, 4)


@contextmanager
def attention_by_cudnn(*, is_on: bool = True) -> Iterator[None]:
    """Within the block attention may be cuDNN's, or may not. PyTorch comes with it, and so does diffusers; the engine
    goes without.
    """
    was_on = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(is_on)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was_on)


class Peer:
    """diffusers' own U-Net, VAE and text encoder in a plain loop."""

    def __init__(self, networks: plain.Networks, side: int, steps: int) -> None:
        self.networks = networks
        self._side, self._steps = side, steps

    @attention_by_cudnn()
    def pictures_a_second(self, batch: int) -> float:
        """Return the pictures a second of a batch that is rendered again and again."""
        seeds = range(batch)

        def render() -> None:
            plain.pictures(self.networks, rendering.PROMPT, seeds, steps=self._steps, side=self._side)

        plain.pictures(self.networks, rendering.PROMPT, seeds, steps=1, side=self._side)
        return batch / clocks.seconds(render, 1 if batch > 1 else 2, warm=0)


def load(bench: Bench) -> Peer:
    """Return diffusers with the weights that the engine has."""
    networks = plain.load(files.full(bench.setting), bench.card.torch, torch.float16)
    return Peer(networks, bench.scale.side, bench.scale.steps)


def compiled(bench: Bench, peer: Peer) -> None:
    """Compile diffusers' U-Net and measure it; report an error of the compiler."""
    if bench.setting.pretends:
        bench.note("diffusers, compiled", "nothing compiles for a pretended card")
        return
    bench.now("diffusers, compiled")
    begun = time.perf_counter()
    try:
        peer.networks.unet.compile(dynamic=False)
        for batch in BATCHES[::2]:
            if batch > 1 and bench.seconds_left < time.perf_counter() - begun:
                return
            bench.note(f"diffusers, compiled, a batch of {batch}", peer.pictures_a_second(batch), "pictures/s")
    except Exception as error:  # noqa: BLE001 - no compiler, no room on a disk: the peer's own affair
        bench.note("diffusers, compiled", f"not here: {type(error).__name__}")
    bench.note("diffusers, compiled after", time.perf_counter() - begun, "s")


class Sizes(NamedTuple):
    """Those of a U-Net of SDXL's kind."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]  # transformers a level
    layers: int
    cells: int  # of a latent's side
    context: int  # width of a token
    pooled: int  # width of the pooled text
    number: int  # width of each of the six numbers that tell size and crop


SDXL: Final = Sizes((320, 640, 1280), (1, 2, 10), 2, 128, 2048, 1280, 256)
SMALL: Final = Sizes((32, 32, 32), (1, 1, 1), 1, 8, 64, 16, 8)


@attention_by_cudnn()
@torch.inference_mode()
def larger(bench: Bench) -> None:
    """A U-Net of SDXL's size at 1024 x 1024: what the engine does not serve yet costs diffusers so much a call."""
    bench.now("SDXL's U-Net by diffusers")
    sizes, on = SMALL if bench.setting.pretends else SDXL, bench.card.torch
    unet = _sdxl(sizes, on)
    for pictures in LARGER_BATCHES[: bench.scale.repeats]:
        rows = 2 * pictures
        call = partial(_called, unet, sizes, rows, torch.tensor([500.0]).to(on))
        bench.note(f"SDXL by diffusers, {rows} rows, a call", 1000 * clocks.seconds(call, bench.scale.repeats), "ms")
    bench.note("SDXL by the engine", "refused: not supported")


def _sdxl(sizes: Sizes, on: torch.device) -> UNet2DConditionModel:
    """A U-Net of SDXL's kind with random weights, on the card, in float16."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=sizes.cells,
            block_out_channels=sizes.widths,
            layers_per_block=sizes.layers,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=sizes.depths,
            attention_head_dim=tuple(max(1, width // 64) for width in sizes.widths),
            cross_attention_dim=sizes.context,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=sizes.number,
            projection_class_embeddings_input_dim=sizes.pooled + 6 * sizes.number,
        )
    shapes = {name: weight.shape for name, weight in unet.state_dict().items()}
    weights = {name: 0.02 * torch.randn(shape, device=on, dtype=torch.float16) for name, shape in shapes.items()}
    unet.load_state_dict(weights, assign=True)
    return unet.eval().requires_grad_(requires_grad=False)


def _called(unet: UNet2DConditionModel, sizes: Sizes, rows: int, at: Tensor) -> None:
    """Call it for so many rows of nothing."""
    blank = partial(torch.zeros, device=at.device, dtype=torch.float16)
    added = {"text_embeds": blank(rows, sizes.pooled), "time_ids": blank(rows, 6)}
    unet(blank(rows, 4, sizes.cells, sizes.cells), at, blank(rows, 77, sizes.context), added_cond_kwargs=added)
