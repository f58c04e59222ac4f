"""The checkpoints of a run: one of full size with random weights, made on the card, and the demo's."""

from __future__ import annotations

import fcntl
import lzma
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch

from bench.card.bench import Setting
from tools.demo_checkpoint import layout

COMPRESSED: Final = ".xz"


def shape(setting: Setting) -> layout.Shape:
    """Return the sizes of the full-size checkpoint: Stable Diffusion 1.5's, or the smallest when pretending."""
    if setting.pretends:
        return layout.Shape(
            image_size=64, unet_width=32, unet_multiples=(1, 1), unet_heads=2, vae_width=32,
            vae_multiples=(1, 1, 1, 1), text_width=64, text_layers=1,
        )  # fmt: skip
    return layout.Shape(
        image_size=512, unet_width=320, unet_multiples=(1, 2, 4, 4), unet_layers=2, unet_heads=8,
        vae_width=128, vae_multiples=(1, 2, 4, 4), vae_layers=2, text_width=768, text_layers=12,
    )  # fmt: skip


def full(setting: Setting, seed: int = 0) -> Path:
    """Return a full-size checkpoint whose weights are drawn from `seed`, written unless it is there.

    Fresh networks say almost nothing: their last layers are made louder, so that a wrong row shows in the picture.
    """
    path = setting.scratch / f"full-{seed}.safetensors"
    with _alone(path):
        if path.exists():
            return path
        sizes = shape(setting)
        with torch.no_grad(), torch.device("cpu" if setting.pretends else setting.card):
            made = layout.build(sizes, seed=seed, scale_factor=0.18215 if not setting.pretends else 0.5)
            made.text.get_input_embeddings().weight.mul_(300)
            made.unet.conv_out.weight.mul_(3)
            made.vae.decoder.conv_out.weight.mul_(3)
            layout.save(made, sizes, path)
    return path


def demonstration(setting: Setting) -> Path:
    """Return the demo checkpoint, unpacked where it came packed. A pretended card has a tiny one instead."""
    if setting.pretends:
        return full(setting, seed=2)
    path = setting.scratch / setting.demo.name.removesuffix(COMPRESSED)
    with _alone(path):
        if path.exists():
            return path
        unpack = lzma.open if setting.demo.suffix == COMPRESSED else Path.open
        partial = path.with_suffix(".partial")
        with unpack(setting.demo, "rb") as packed, partial.open("wb") as whole:
            shutil.copyfileobj(packed, whole, 2**20)
        shutil.copy(setting.demo.parent / f"{path.stem}.yaml", path.with_suffix(".yaml"))
        partial.replace(path)
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Within the block no other process writes `path`."""
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
