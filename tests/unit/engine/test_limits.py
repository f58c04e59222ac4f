from __future__ import annotations

from typing import Any

import pytest
import torch

from shared.prompts.chunks import EMPTY
from tests.support.conditioned import term
from worker.engine.loop.limits import call_seconds, load_seconds, work_seconds
from worker.engine.requests import Denoise, Embed, ToLatent, ToPixels

NOTHING: Any = None


def denoise(rows: int, side: int) -> Denoise:
    terms = (term(1.0, torch.zeros(77, 8)),) * rows
    return Denoise(NOTHING, torch.zeros(4, side, side), 1.0, terms, 1, 20)


def test_a_larger_file_may_take_longer() -> None:
    assert load_seconds(0) >= 60
    assert load_seconds(2 * 10**9) - load_seconds(0) == pytest.approx(400)


def test_a_call_may_take_longer_by_its_rows_and_cells_and_on_the_cpu() -> None:
    native = work_seconds([denoise(1, 64)], "cuda")
    assert work_seconds([denoise(2, 64)] * 3, "cuda") == pytest.approx(6 * native)
    assert work_seconds([denoise(1, 256)], "cuda") > 16 * native
    assert work_seconds([denoise(1, 64)], "cpu") > 50 * native


def test_every_kind_of_call_has_its_limit() -> None:
    requests = [
        Embed(NOTHING, (EMPTY, EMPTY)),
        ToPixels(NOTHING, torch.zeros(4, 64, 64)),
        ToLatent(NOTHING, torch.zeros(3, 512, 512)),
    ]
    embed, pixels, latent = (work_seconds([request], "cpu") for request in requests)
    assert embed == pytest.approx(2 * work_seconds([Embed(NOTHING, (EMPTY,))], "cpu"))
    assert pixels == latent > 60
    assert call_seconds(embed) > embed + 30
