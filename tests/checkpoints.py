"""Checkpoints for tests: as small as the original layout allows, their weights drawn from a seed."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

LAYOUT = Path(__file__).parents[1] / "models" / "demo" / "layout.py"
NATIVE_SIZE = 64


@cache
def layout() -> ModuleType:
    """Return `models/demo/layout.py`, which stands in no package."""
    spec = importlib.util.spec_from_file_location("demo_layout", LAYOUT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def tiny_shape() -> Any:
    """Return the smallest sizes: every width 32, one layer a level, text 64 wide."""
    return layout().Shape(
        image_size=NATIVE_SIZE,
        unet_width=32,
        unet_multiples=(1, 1, 1),  # at four levels 32 groups of one pixel would have no variance
        unet_heads=2,
        vae_width=32,
        vae_multiples=(1, 1, 1, 1),
        text_width=64,
        text_layers=1,
    )


def write_tiny(path: Path, seed: int = 0) -> Path:
    """Write a tiny checkpoint and its .yaml; its pictures are coloured noise that differs by prompt and seed.

    Fresh networks say almost nothing: their last layers are made louder, so that a wrong row shows in the picture.
    """
    checkpoint = layout().build(tiny_shape(), seed=seed, scale_factor=0.5)
    with torch.no_grad():
        checkpoint.text.get_input_embeddings().weight.mul_(300)
        checkpoint.unet.conv_out.weight.mul_(3)
        checkpoint.vae.decoder.conv_out.weight.mul_(3)
    layout().save(checkpoint, tiny_shape(), path)
    return path
