from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from shared.prompts.chunks import EMPTY
from tests.support.conditioned import term
from worker.engine.architectures.registry import ARCHITECTURES
from worker.engine.loop.limits import call_seconds, load_seconds, work_seconds
from worker.engine.requests import Apply, Denoise, Embed, ToLatent, ToPixels


def weights(architecture: str, native_size: int) -> Any:
    """What the limits read of a checkpoint."""
    found = ARCHITECTURES[architecture]
    return SimpleNamespace(architecture=found, latent=found.latent, native_size=native_size)


SD1 = weights("sd1", 512)


def denoise(rows: int, side: int, of: Any = SD1) -> Denoise:
    terms = (term(1.0, torch.zeros(77, 8)),) * rows
    return Denoise(of, torch.zeros(4, side, side), 1.0, terms, 1, 20)


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
        Embed(SD1, (EMPTY, EMPTY)),
        ToPixels(SD1, torch.zeros(4, 64, 64)),
        ToLatent(SD1, torch.zeros(3, 512, 512)),
    ]
    embed, pixels, latent = (work_seconds([request], "cpu") for request in requests)
    assert embed == pytest.approx(2 * work_seconds([Embed(SD1, (EMPTY,))], "cpu"))
    assert pixels == latent > 60
    assert call_seconds(embed) > embed + 30


def test_a_separate_network_may_take_as_long_as_it_uses_its_weights() -> None:
    network, pixels = torch.nn.Linear(10, 10), torch.zeros(3, 224, 224)
    everywhere, at_some = (work_seconds([Apply(network, pixels, places=places)], "cpu") for places in (None, 257))
    assert everywhere / at_some == pytest.approx(224 * 224 / 257)


@pytest.mark.parametrize(
    ("name", "native_size", "trillions"), [("sd2", 768, 2.15), ("sdxl", 1024, 6.76), ("sdxl-refiner", 1024, 7.29)]
)
def test_a_step_may_take_as_long_as_its_operations_say(name: str, native_size: int, trillions: float) -> None:
    """Counted by torch.utils.flop_counter in a call of each U-Net at its native size; 0.80 in Stable Diffusion 1's."""
    step = work_seconds([denoise(1, native_size // 8, weights(name, native_size))], "cuda")
    assert step / work_seconds([denoise(1, 64)], "cuda") == pytest.approx(trillions / 0.80, rel=0.2)


def test_larger_text_encoders_may_take_longer() -> None:
    seconds = [work_seconds([Embed(weights(name, 512), (EMPTY,))], "cpu") for name in ("sd1", "sd2", "sdxl")]
    assert seconds == sorted(seconds)
    assert seconds[2] > 8 * seconds[0]
