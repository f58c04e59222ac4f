"""Attention layers of a U-Net are found once, and go with it."""

from __future__ import annotations

import gc
import weakref

from torch import nn

from worker.engine.adapters.attentions import attentions


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.attn2 = nn.Module(), nn.Module()
        for layer in (self.attn1, self.attn2):
            layer.to_k = nn.Linear(2, 2)


def test_they_are_found_once_and_do_not_keep_their_unet():
    unet = nn.Sequential(_Block(), nn.Linear(2, 2))
    found = attentions(unet)
    assert [one.path for one in found] == ["0.attn1", "0.attn2"]
    assert attentions(unet) is found
    is_there = weakref.ref(unet)
    del unet, found
    gc.collect()
    assert is_there() is None
