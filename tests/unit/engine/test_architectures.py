"""How each architecture reads parameters and prompts."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

import worker.engine
from shared.models import inspection
from shared.models.architectures import ARCHITECTURES as FACTS
from shared.models.architectures import shares_latents
from shared.params.render import RenderParams
from shared.params.size_conditioning import Crop, OriginalSize, TargetSize
from shared.prompts.chunks import Chunk
from shared.prompts.tokenizer import BOS, EOS
from worker.engine.architectures.conditioning import Conditioning
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.registry import ARCHITECTURES

PARAMS = RenderParams(width=832, height=1216, clip_skip=3)
SIZED = PARAMS.model_copy(
    update={
        "original_size": OriginalSize(width=2048, height=1536),
        "crop": Crop(left=16, top=8),
        "target_size": TargetSize(width=512, height=768),
    }
)
NETWORKS: Any = {"text_encoder": SimpleNamespace(), "text_encoder_2": SimpleNamespace()}


def test_the_engine_renders_what_the_catalogue_has_a_name_for() -> None:
    assert ARCHITECTURES.keys() == FACTS.keys()
    assert [architecture.label for architecture in ARCHITECTURES.values()] == [facts.label for facts in FACTS.values()]
    assert {prediction.value for prediction in Prediction} == set(get_args(inspection.Prediction))


def test_architectures_that_read_the_same_latents_have_the_same_latent_space() -> None:
    for one, other in combinations(ARCHITECTURES, 2):
        if shares_latents(one, other):
            assert ARCHITECTURES[one].latent == ARCHITECTURES[other].latent


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_only_sdxl_sees_the_size_of_a_picture(name: str) -> None:
    assert ARCHITECTURES[name].sizes(SIZED, is_negative=False) == ()


def test_sdxl_sees_heights_before_widths_and_by_default_those_of_the_pass() -> None:
    sdxl = ARCHITECTURES["sdxl"]
    assert sdxl.sizes(PARAMS, is_negative=True) == (1216, 832, 0, 0, 1216, 832)
    assert sdxl.sizes(SIZED, is_negative=False) == (1536, 2048, 8, 16, 768, 512)


def test_the_refiner_sees_an_aesthetic_score_that_is_lower_for_the_negative_prompt() -> None:
    refiner = ARCHITECTURES["sdxl-refiner"]
    assert refiner.sizes(SIZED, is_negative=False) == (1536, 2048, 8, 16, 6.0)
    assert refiner.sizes(PARAMS, is_negative=True) == (1216, 832, 0, 0, 2.5)


@pytest.mark.parametrize(
    ("name", "asks", "layers"),
    [
        ("sd1", False, (3,)),
        ("sd2", True, (1,)),
        ("sdxl", False, (2, 2)),
        ("sdxl", True, (3, 2)),
        ("sdxl-refiner", True, (2,)),
    ],
)
def test_clip_skip_moves_the_layers_that_the_web_ui_moves(name: str, asks: bool, layers: tuple[int, ...]) -> None:  # noqa: FBT001
    architecture = ARCHITECTURES[name]
    skip = architecture.clip_skip(PARAMS.model_copy(update={"sdxl_clip_l_skip": asks}))
    assert tuple(encoder.layer_of(skip) for encoder in architecture.text_encoders(NETWORKS)) == layers


@pytest.mark.parametrize(
    ("name", "fillings"), [("sd1", [EOS]), ("sd2", [0]), ("sdxl", [EOS, 0]), ("sdxl-refiner", [0])]
)
def test_a_chunk_is_filled_as_its_text_encoder_was_trained(name: str, fillings: list[int]) -> None:
    for encoder, filling in zip(ARCHITECTURES[name].text_encoders(NETWORKS), fillings, strict=True):
        assert encoder.tokens(Chunk((5, 6), (1.0, 1.0))) == (BOS, 5, 6, EOS, *[filling] * 73)
        assert encoder.tokens(Chunk((7,) * 75, (1.0,) * 75)) == (BOS, *[7] * 75, EOS)


def test_conditionings_of_other_forms_do_not_stack() -> None:
    plain = Conditioning(torch.zeros(77, 8), 77)
    pooled = Conditioning(torch.zeros(77, 8), 77, torch.zeros(4), (1.0,) * 6)
    longer, wider = Conditioning(torch.zeros(154, 8), 77), Conditioning(torch.zeros(77, 9), 77)
    masked = Conditioning(torch.zeros(77, 8), 77, extra=torch.zeros(5, 2, 2))
    assert plain.form == longer.form
    assert len({one.form for one in (plain, pooled, wider, masked)}) == 4


@pytest.mark.parametrize("prediction", Prediction)
def test_a_prediction_of_the_truth_denoises_to_the_truth(prediction: Prediction) -> None:
    """x0 and unit noise, as the training has them at unit variance."""
    latent, noise = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sigma = torch.tensor([0.03, 1.0, 4096.0], dtype=torch.float64)[:, None, None, None]
    x, scale = latent + sigma * noise, (1 + sigma**2).rsqrt()
    velocity = scale * noise - sigma * scale * latent
    truth = noise if prediction is Prediction.NOISE else velocity
    torch.testing.assert_close(prediction.denoised(x, sigma, truth), latent, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(prediction.scaled(x, sigma), x / torch.hypot(torch.ones_like(sigma), sigma))
    torch.testing.assert_close(prediction.scaled(x, sigma)[2], x[2] / prediction.scale(4096.0))
    still = prediction.denoised(x[:1], sigma[:1], torch.zeros_like(x[:1]))
    torch.testing.assert_close(prediction.still(x[:1], 0.03), still)


def test_nothing_but_architectures_knows_at_which_scale_a_network_sees_a_latent() -> None:
    """Samplers, schedules, guidance and inpainting know x = x0 + sigma * noise alone."""
    engine = Path(worker.engine.__file__).parent
    scale = re.compile(r"hypot\(1|rsqrt|\b1 \+ \w+\s?\*\* ?2|predicts_velocity|Prediction\.(NOISE|VELOCITY)")
    for room in ("sampling", "guidance", "pipelines", "answers", "images", "loop"):
        for file in (engine / room).glob("*.py"):
            assert not scale.search(file.read_text()), file
