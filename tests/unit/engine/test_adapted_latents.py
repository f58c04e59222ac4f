"""Final latents with adapters, by rows or merged, against networks in which LyCORIS computes the changed layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import Tensor

from shared.params.render import RenderParams
from tests.support import lora_files, lycoris_files
from tests.support.conditioned import with_empty_caches
from tests.support.lora_files import FORMS, Adapter, Drawn, Tensors
from tests.unit.engine.conftest import Small
from worker.engine.adapters.merging import merged
from worker.engine.adapters.reading.load import load, load_deltas
from worker.engine.architectures.weights import Weights
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.denoise_pass import drawn, from_noise, modelled, planned, sampled
from worker.engine.pipelines.inputs import Kit
from worker.engine.requests import Asks

BOUND = 1e-4
TEXTS, UNET = 0.6, 0.8  # strengths
BY_ROWS = ("LoCon", "LoCon, rank stabilised")
BY_DAY = {("sd1", "kohya"), ("sd1", "LoHa")}

Latent = Callable[..., Tensor]


def cases(names: Mapping[str, object] | tuple[str, ...]) -> list[Any]:
    return [
        pytest.param(kind, name, id=f"{kind}-{name}", marks=() if (kind, name) in BY_DAY else pytest.mark.nightly)
        for kind in ("sd1", "sd2", "sdxl")
        for name in names
    ]


def final(params: RenderParams, kit: Kit) -> Asks[Tensor]:
    this_pass = planned(params, kit.weights, adapters=kit.adapters)
    draws = yield from drawn(this_pass)
    model = yield from modelled(this_pass)
    return (yield from sampled(this_pass, model, from_noise(this_pass, draws.first), draws))


@pytest.fixture
def latent(engine: Engine, params: RenderParams) -> Latent:
    changes = {"width": 64, "height": 64, "steps": 3, "sampler": "Euler", "negative_prompt": "fog"}

    def latent(weights: Weights, prompt: str = "", **kit: Any) -> Tensor:
        asked = params.model_copy(update={**changes, "prompt": f"sea at night{prompt}"})
        found: Tensor = engine.render(final(asked, Kit(with_empty_caches(weights), **kit))).result()
        return found

    return latent


def assert_alike(found: Tensor, expected: Tensor, without: Tensor) -> None:
    assert 0.2 < float(expected.std()) < 5
    assert float((found - expected).abs().max()) < BOUND
    assert float((without - expected).abs().max()) > 100 * BOUND


def small_factors(weights: Weights) -> Adapter:
    """Return an adapter that changes each layer by about a tenth."""

    def small(layer: Drawn) -> Drawn:
        return Drawn(layer.down / layer.down[0].numel() ** 0.5, layer.up / 10, layer.alpha)

    every = lora_files.drawn(weights)
    return {network: {path: small(layer) for path, layer in layers.items()} for network, layers in every.items()}


def written(tensors: Tensors, folder: Path) -> Path:
    path = folder / "one.safetensors"
    save_file({name: one.contiguous() for name, one in tensors.items()}, path)
    return path


@pytest.mark.parametrize(("kind", "form"), cases(FORMS))
def test_a_file_of_any_form_by_rows_gives_the_latent_of_its_factors_in_lycoris(
    small: Small, latent: Latent, tmp_path: Path, kind: str, form: str
) -> None:
    weights = small(kind)
    adapter = small_factors(weights)
    file = load(written(FORMS[form](adapter, weights), tmp_path), "ab" * 32, weights)
    by_rows = latent(weights, f"<lora:one:{TEXTS}:{UNET}>", adapters={"lora:one": file})
    reference = lycoris_files.running(weights, lycoris_files.of_factors(weights, adapter), TEXTS, UNET)
    assert_alike(by_rows, latent(reference), latent(weights))


@pytest.mark.parametrize(("kind", "name"), cases(BY_ROWS))
def test_a_file_of_lycoris_by_rows_gives_its_latent(
    small: Small, latent: Latent, tmp_path: Path, kind: str, name: str
) -> None:
    weights = small(kind)
    made = lycoris_files.made(weights, name)
    file = load(written(made.tensors, tmp_path), "ab" * 32, weights)
    by_rows = latent(weights, f"<lora:one:{TEXTS}:{UNET}>", adapters={"lora:one": file})
    reference = lycoris_files.running(weights, made.modules, TEXTS, UNET)
    assert_alike(by_rows, latent(reference), latent(weights))


@pytest.mark.parametrize(("kind", "name"), cases(tuple(name for name in lycoris_files.KINDS if name not in BY_ROWS)))
def test_a_merged_file_gives_the_latent_of_lycoris(
    small: Small, latent: Latent, tmp_path: Path, kind: str, name: str
) -> None:
    weights = small(kind)
    made = lycoris_files.made(weights, name)
    together = merged(weights, [(load_deltas(written(made.tensors, tmp_path), "ab" * 32), 1.0, 1.0)])
    reference = lycoris_files.running(weights, made.modules, 1.0, 1.0)
    assert_alike(*(latent(one) for one in (together, reference, weights)))
