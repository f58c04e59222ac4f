"""Rows of a network come out the same to the last bit, however many are asked for at once."""

from __future__ import annotations

import pytest
import torch

from worker.engine.weights import Weights


@pytest.mark.parametrize("sides", [(8, 8), (8, 16), (16, 24)], ids=str)
def test_two_rows_are_the_same_to_the_bit_whatever_company_they_have(tiny: Weights, sides: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(7)
    latents = torch.randn(24, 4, *sides, generator=draw)
    steps = torch.rand(24, generator=draw) * 999
    text = torch.randn(24, 77, tiny.unet.config["cross_attention_dim"], generator=draw)

    def rows(count: int) -> torch.Tensor:
        with torch.inference_mode():
            answer: torch.Tensor = tiny.unet(latents[:count], steps[:count], text[:count], return_dict=False)[0]
        return answer

    alone = rows(2)
    for count in (3, 4, 6, 8, 15, 16, 17, 24):
        assert torch.equal(rows(count)[:2], alone), count
