"""What the networks are asked, against asking them plainly."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.tokens import BOS, EOS
from worker.engine import answers
from worker.engine.guidance import terms
from worker.engine.noise import draw, draws_needed
from worker.engine.previews import preview
from worker.engine.requests import Apply, Denoise, Embed, Term, ToLatent, ToPixels
from worker.engine.schedules import SigmaTable
from worker.engine.weights import Embeddings, Weights

LATENT = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(3))


def only(answered: Any) -> Any:
    """The answer to the only request, which did not fail."""
    (answer,) = answered
    if isinstance(answer, Exception):
        raise answer
    return answer


def context(weights: Weights, text: str) -> Tensor:
    return only(answers.embed([Embed(weights, (text,))], is_exact=True))[0]


def denoised(weights: Weights, sigma: float, *conditioning: Term) -> Tensor:
    return only(answers.denoise([Denoise(weights, LATENT, sigma, conditioning, 1, 1)]))


@torch.inference_mode()
def test_a_context_is_what_the_text_encoder_says_of_each_chunk(tiny: Weights) -> None:
    tokens = tiny.tokenizer.encode("sea at night")
    row = torch.tensor([[BOS, *tokens, *[EOS] * (76 - len(tokens))]])
    expected = tiny.text_encoder(input_ids=row).last_hidden_state[0]
    torch.testing.assert_close(context(tiny, "sea at night"), expected)

    long = context(tiny, "cat " * 80)
    assert long.shape == (154, 64)
    torch.testing.assert_close(long[:77], context(tiny, "cat " * 75))
    torch.testing.assert_close(long[77:], context(tiny, "cat " * 5))


@pytest.mark.parametrize("sigma", [14.6, 1.0, 0.03])
@torch.inference_mode()
def test_a_model_that_predicts_noise_is_asked_at_unit_variance(tiny: Weights, sigma: float) -> None:
    words = context(tiny, "sea")
    timestep = torch.tensor([tiny.sigmas.timestep(sigma)])
    noise = tiny.unet(LATENT[None] / math.hypot(1, sigma), timestep, words[None]).sample[0]
    torch.testing.assert_close(denoised(tiny, sigma, Term(1, words)), LATENT - noise * sigma, rtol=0, atol=1e-3)


@torch.inference_mode()
def test_a_model_that_predicts_velocity_is_read_as_such(tiny: Weights) -> None:
    """x = latent + sigma·noise; at unit variance v = (noise - sigma·latent) / √(1 + sigma²)."""
    sigma, words = 1.7, context(tiny, "sea")
    velocity = dataclasses.replace(tiny, predicts_velocity=True)
    says = tiny.unet(
        LATENT[None] / math.hypot(1, sigma), torch.tensor([tiny.sigmas.timestep(sigma)]), words[None]
    ).sample[0]
    latent = denoised(velocity, sigma, Term(1, words))
    noise = (LATENT - latent) / sigma
    torch.testing.assert_close((noise - sigma * latent) / math.hypot(1, sigma), says, rtol=1e-3, atol=1e-4)


def test_guidance_is_the_textbooks_formula(tiny: Weights) -> None:
    towards, away = context(tiny, "sea"), context(tiny, "")
    one, other = (denoised(tiny, 2.0, Term(1, words)) for words in (towards, away))
    guided = denoised(tiny, 2.0, *terms(towards, away, 7.0))
    torch.testing.assert_close(guided, other + 7.0 * (one - other), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("scale", "weights"), [(7.0, [7.0, -6.0]), (1.0, [1.0]), (0.0, [1.0]), (0.5, [0.5, 0.5])])
def test_terms_sum_to_one_and_none_weighs_nothing(scale: float, weights: list[float]) -> None:
    assert [term.weight for term in terms(torch.zeros(1), torch.ones(1), scale)] == weights


@pytest.mark.parametrize(("prompt", "negative"), [(160, 0), (0, 160), (80, 300)])
def test_a_context_that_is_padded_says_what_it_says_unpadded(tiny: Weights, prompt: int, negative: int) -> None:
    long, short = context(tiny, "moon " * prompt), context(tiny, "cat " * negative)
    apart = [denoised(tiny, 2.0, Term(1, words)) for words in (long, short)]
    together = denoised(tiny, 2.0, Term(0.25, long), Term(0.75, short))
    torch.testing.assert_close(together, 0.25 * apart[0] + 0.75 * apart[1], rtol=1e-4, atol=1e-4)


def test_embeddings_are_kept_and_exact_ones_are_made_anew(tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = dataclasses.replace(tiny, embeddings=Embeddings(8))
    rows: list[int] = []
    original = answers._encode_rows

    def counted(weights: Weights, chunks: Any) -> Any:
        rows.append(len(chunks))
        return original(weights, chunks)

    monkeypatch.setattr(answers, "_encode_rows", counted)
    answers.embed([Embed(weights, ("a", "")), Embed(weights, ("b", ""))], is_exact=False)
    assert rows == [3]  # the empty prompt once
    answers.embed([Embed(weights, ("a", "c"))], is_exact=False)
    assert rows == [3, 1]
    answers.embed([Embed(weights, ("a", "c"))], is_exact=True)
    assert rows == [3, 1, 1, 1]


def test_a_long_prompt_is_encoded_in_calls_of_the_row_budget(tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def counted(weights: Weights, chunks: Any) -> Any:
        rows.append(len(chunks))
        return [torch.full((77, 64), float(chunk[1])) for chunk in chunks]

    monkeypatch.setattr(answers, "_encode_rows", counted)
    budget = tiny.device.row_budget
    words = [chr(ord("a") + number % 26) + f"{number}" for number in range(75 * (2 * budget + 3) // 3)]
    weights = dataclasses.replace(tiny, embeddings=Embeddings(8))
    (long,) = only(answers.embed([Embed(weights, (" ".join(words),))], is_exact=False))
    chunks = weights.tokenizer.chunks(" ".join(words))
    assert max(rows) == budget
    assert sum(rows) == len(chunks) > 2 * budget
    assert long[::77, 0].tolist() == [chunk[0] for chunk in chunks]


def test_the_embedding_that_was_asked_for_longest_ago_goes_first() -> None:
    kept = Embeddings(2)
    for chunk in ((1,), (2,)):
        kept.put(chunk, torch.tensor(chunk))
    kept.get((1,))
    kept.put((3,), torch.tensor(3))
    assert kept.get((2,)) is None
    assert kept.get((1,)) is not None


@torch.inference_mode()
def test_pixels_are_what_the_vae_decodes_and_come_back_as_their_latent(tiny: Weights) -> None:
    pixels = only(answers.to_pixels([ToPixels(tiny, LATENT)]))
    torch.testing.assert_close(pixels, tiny.vae.decode(LATENT[None] / 0.5).sample[0])
    latent = only(answers.to_latent([ToLatent(tiny, pixels)]))
    torch.testing.assert_close(latent, tiny.vae.encode(pixels[None]).latent_dist.mode()[0] * 0.5)


def test_a_network_of_its_own_is_applied_to_pixels() -> None:
    double = nn.Upsample(scale_factor=2)
    assert only(answers.apply([Apply(double, torch.ones(3, 8, 8))])).shape == (3, 16, 16)


def test_noise_is_the_seeds_own_draw_by_draw() -> None:
    generator = torch.Generator().manual_seed(2**53 - 1)
    expected = [torch.randn((4, 8, 9), generator=generator) for _ in range(3)]
    draws = draw(2**53 - 1, width=72, height=64, count=3)
    assert torch.equal(draws, torch.stack(expected))
    assert torch.equal(draw(2**53 - 1, width=72, height=64, count=1)[0], expected[0])


def test_only_ancestral_steps_that_do_not_end_at_zero_draw() -> None:
    assert draws_needed([3.0, 2.0, 1.0, 0.0], is_ancestral=True) == 3
    assert draws_needed([3.0, 2.0, 1.0, 0.0], is_ancestral=False) == 1


def test_a_preview_has_the_colours_that_the_vae_gives_a_flat_latent(tiny: Weights) -> None:
    flat = torch.tensor([0.5, -0.3, 0.1, 0.2])[:, None, None].expand(4, 8, 8)
    pixels = only(answers.to_pixels([ToPixels(tiny, flat)])).mean(dim=(1, 2))
    seen = preview(flat, tiny.latent_rgb)
    assert seen.shape == (8, 8, 3)
    assert seen.dtype == np.uint8
    expected = ((pixels.clamp(-1, 1) + 1) * 127.5).numpy()
    assert np.abs(seen.mean(axis=(0, 1)) - expected).max() < 25


def test_a_preview_of_numbers_that_are_not_finite_is_a_picture_too(tiny: Weights) -> None:
    assert preview(torch.full((4, 8, 8), torch.nan), tiny.latent_rgb).shape == (8, 8, 3)


def test_scaled_linear_betas_give_the_papers_ends() -> None:
    table = SigmaTable.scaled_linear()
    assert table.values[0] ** 2 == pytest.approx(0.00085 / (1 - 0.00085))
    assert len(table.values) == 1000
