"""Models that hold a part of the picture: tried on a model that is a formula, without a network."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch
from torch import Tensor

from worker.engine.guidance import inpainting
from worker.engine.images import latents
from worker.engine.sampling.registry import SAMPLERS

SIGMAS = [8.0, 4.0, 2.0, 1.0, 0.0]


def answered(asks: Generator[Any, Any, Tensor]) -> Tensor:
    """Return the result of a generator that asks the card for nothing."""
    with pytest.raises(StopIteration) as end:
        next(asks)
    return end.value.value


def formula(seen: list[Tensor]) -> Callable[[Tensor, float], Generator[Any, Any, Tensor]]:
    """A model without a network, and what it is shown."""

    def model(x: Tensor, sigma: float) -> Generator[Any, Any, Tensor]:
        seen.append(x)
        return torch.tanh(x / (1 + sigma))
        yield

    return model


@pytest.fixture
def noise() -> Tensor:
    return torch.randn((4, 6, 8), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def known() -> Tensor:
    return torch.randn((4, 6, 8), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def mask() -> Tensor:
    mask = torch.zeros(1, 6, 8)
    mask[:, 2:4, 3:6] = 1
    return mask


def test_a_held_model_finds_the_known_latent_outside_of_the_mask(known: Tensor, noise: Tensor, mask: Tensor) -> None:
    found = answered(inpainting.held(formula([]), known, mask)(noise, 2.0))
    plain = answered(formula([])(noise, 2.0))
    assert torch.equal(found, torch.where(mask.bool(), plain, known))


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "Heun"])
def test_what_is_held_ends_as_it_was(sampler: str, known: Tensor, noise: Tensor, mask: Tensor) -> None:
    model = inpainting.held(formula([]), known, mask)
    end = answered(SAMPLERS[sampler](model, known + noise * SIGMAS[0], SIGMAS, lambda *_: noise))
    outside = ~mask.bool().expand_as(end)
    assert torch.allclose(end[outside], known[outside], atol=1e-6)


def test_a_reset_model_sees_the_known_latent_at_its_noise_level(known: Tensor, noise: Tensor, mask: Tensor) -> None:
    """As latent diffusion's DDIM does: the known part is noised again, with the same noise, before every call."""
    seen: list[Tensor] = []
    model = inpainting.reset(formula(seen), known, noise, mask)
    answered(SAMPLERS["Euler"](model, known + noise * SIGMAS[0], SIGMAS, lambda *_: noise))
    outside = ~mask.bool().expand_as(known)
    for x, sigma in zip(seen, SIGMAS, strict=False):
        kept = 1 / (1 + sigma**2)  # ā: the same in the coordinates of the paper
        noised = (known * kept**0.5 + noise * (1 - kept) ** 0.5) / kept**0.5
        assert torch.allclose(x[outside], noised[outside], atol=1e-5)


def test_a_soft_mask_lets_go_of_each_place_by_its_strength(known: Tensor, noise: Tensor) -> None:
    strength = torch.linspace(0, 1, 48).reshape(1, 6, 8)
    seen: list[Tensor] = []
    model = inpainting.released(formula(seen), known, noise, strength, SIGMAS)
    x = torch.zeros_like(known)
    for call, sigma in enumerate(SIGMAS[:-1]):
        answered(model(x, sigma))
        free = strength >= 1 - call / 4  # Levin and Fried: at call t of T, places of strength 1 - t/T and more
        assert torch.allclose(seen[-1], torch.where(free, x, known + noise * sigma))


def test_a_model_of_two_answers_is_held_by_what_it_is_shown(known: Tensor, noise: Tensor, mask: Tensor) -> None:
    def pair(x: Tensor, sigma: float) -> Generator[Any, Any, tuple[Tensor, Tensor]]:
        return x, -x
        yield

    one, other = answered(inpainting.reset(pair, known, noise, mask)(noise, 2.0))
    assert torch.equal(one, -other)
    assert torch.equal(one, latents.mixed(noise, known + noise * 2, mask))


# Latents.


@pytest.mark.parametrize(
    ("upscaler", "mode", "antialias"),
    [
        ("Latent", "bilinear", False),
        ("Latent (antialiased)", "bilinear", True),
        ("Latent (bicubic)", "bicubic", False),
        ("Latent (bicubic antialiased)", "bicubic", True),
        ("Latent (nearest)", "nearest", False),
        ("Latent (nearest-exact)", "nearest-exact", False),
    ],
)
def test_a_latent_is_enlarged_as_its_upscaler_says(known: Tensor, upscaler: str, mode: str, antialias: bool) -> None:  # noqa: FBT001
    expected = torch.nn.functional.interpolate(known[None], size=(9, 12), mode=mode, antialias=antialias)[0]
    assert torch.equal(latents.resized(known, 9, 12, upscaler), expected)


def test_a_latent_is_cut_the_same_on_both_sides(known: Tensor) -> None:
    assert torch.equal(latents.cut(known, 2, 4), known[:, 2:4, 1:7])
    assert torch.equal(latents.cut(known, 0, 0), known)
