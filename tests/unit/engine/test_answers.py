"""What the networks are asked, against asking them plainly."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.errors import RenderError
from shared.prompts.tokenizer import BOS, EOS
from tests.support.conditioned import term, with_empty_caches
from worker.engine.answers import denoising, embedding
from worker.engine.answers.denoising import denoise
from worker.engine.answers.embedding import embed
from worker.engine.answers.pixels import apply, to_latent, to_pixels
from worker.engine.architectures import conditioning
from worker.engine.architectures.base import Encoded
from worker.engine.architectures.conditioning import Conditioning
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.weights import Weights
from worker.engine.images.previews import mapped
from worker.engine.requests import Apply, Denoise, Embed, Term, ToLatent, ToPixels
from worker.engine.sigma_table import SigmaTable
from worker.engine.tensor_cache import TensorCache

LATENT = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(3))


def only(answered: Any) -> Any:
    """The answer to the only request, which did not fail."""
    (answer,) = answered
    if isinstance(answer, Exception):
        raise answer
    return answer


def said(weights: Weights, text: str) -> Embed:
    return Embed(weights, weights.tokenizer.chunks(text))


def context(weights: Weights, text: str) -> Tensor:
    conditioning: Conditioning = only(embed([said(weights, text)], is_exact=True))
    return conditioning.context


def denoised(weights: Weights, sigma: float, *terms: Term) -> Tensor:
    return only(denoise([Denoise(weights, LATENT, sigma, terms, 1, 1)], is_exact=False))


@torch.inference_mode()
def test_a_context_is_what_the_text_encoder_says_of_each_chunk(tiny: Weights) -> None:
    tokens = tiny.tokenizer.encode("sea at night")
    row = torch.tensor([[BOS, *tokens, *[EOS] * (76 - len(tokens))]])
    expected = tiny.text_encoders[0].network(input_ids=row).last_hidden_state[0]
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
    torch.testing.assert_close(denoised(tiny, sigma, term(1, words)), LATENT - noise * sigma, rtol=0, atol=1e-3)


@torch.inference_mode()
def test_a_model_that_predicts_velocity_is_read_as_such(tiny: Weights) -> None:
    """x = latent + sigma·noise; at unit variance v = (noise - sigma·latent) / √(1 + sigma²)."""
    sigma, words = 1.7, context(tiny, "sea")
    velocity = dataclasses.replace(tiny, prediction=Prediction.VELOCITY)
    says = tiny.unet(
        LATENT[None] / math.hypot(1, sigma), torch.tensor([tiny.sigmas.timestep(sigma)]), words[None]
    ).sample[0]
    latent = denoised(velocity, sigma, term(1, words))
    noise = (LATENT - latent) / sigma
    torch.testing.assert_close((noise - sigma * latent) / math.hypot(1, sigma), says, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("prompt", "negative"), [(160, 0), (0, 160), (80, 300)])
def test_a_context_that_is_padded_says_what_it_says_unpadded(tiny: Weights, prompt: int, negative: int) -> None:
    long, short = context(tiny, "moon " * prompt), context(tiny, "cat " * negative)
    apart = [denoised(tiny, 2.0, term(1, words)) for words in (long, short)]
    together = denoised(tiny, 2.0, term(0.25, long), term(0.75, short))
    torch.testing.assert_close(together, 0.25 * apart[0] + 0.75 * apart[1], rtol=1e-4, atol=1e-4)


def test_further_sums_are_made_of_the_same_rows(tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    original = denoising._denoise_rows

    def counted(weights: Weights, asked: Any) -> Any:
        rows.append(len(asked))
        return original(weights, asked)

    monkeypatch.setattr(denoising, "_denoise_rows", counted)
    terms = (term(3.0, context(tiny, "sea")), term(-2.0, context(tiny, "cat")))
    request = Denoise(tiny, LATENT, 2.0, terms, 1, 1, also=((1.0, 0.0), (0.0, 1.0)))
    total, sea, cat = only(denoise([request], is_exact=False))
    torch.testing.assert_close(total, 3 * sea - 2 * cat)
    torch.testing.assert_close(sea, denoised(tiny, 2.0, dataclasses.replace(terms[0], weight=1)), rtol=1e-4, atol=1e-4)
    assert rows == [2, 1]
    denoise([request, request], is_exact=True)
    assert rows[2:] == [1, 1, 1, 1]


def test_views_with_tables_of_their_own_are_asked_at_their_own_timesteps(tiny: Weights) -> None:
    terms = (term(1, context(tiny, "sea")),)
    views = [tiny, dataclasses.replace(tiny, sigmas=SigmaTable.scaled_linear(0.001, 0.02))]
    asked: list[Tensor] = []
    hook = tiny.unet.register_forward_pre_hook(lambda _, arguments: asked.append(arguments[1]))
    denoise([Denoise(view, LATENT, 2.0, terms, 1, 1) for view in views], is_exact=False)
    hook.remove()
    expected = [view.sigmas.timestep(2.0) for view in views]
    assert asked[0].tolist() == pytest.approx(expected)
    assert abs(expected[0] - expected[1]) > 10


@pytest.mark.parametrize(("tiling", "cells"), [("x", (0, 2)), ("y", (2, 0)), ("both", (6, 4))])
def test_a_latent_without_seams_is_denoised_wherever_it_starts(tiny: Weights, tiling: Any, cells: Any) -> None:
    """Moved by as many cells as the U-Net's deepest level sees as one, and around the edge."""
    cells = (cells[0] * 2, cells[1] * 2)  # the tiny one halves a side twice
    sea, endless = context(tiny, "sea"), tiny.tiled(tiling)
    moved = LATENT.roll(cells, dims=(1, 2))

    def asked(weights: Weights, x: Tensor) -> Tensor:
        return only(denoise([Denoise(weights, x, 2.0, (term(1, sea),), 1, 1)], is_exact=False))

    torch.testing.assert_close(
        asked(endless, moved), asked(endless, LATENT).roll(cells, dims=(1, 2)), atol=2e-3, rtol=0
    )
    assert not torch.allclose(asked(tiny, moved), asked(tiny, LATENT).roll(cells, dims=(1, 2)), atol=2e-2)


# Checkpoints that were trained for inpainting.


@pytest.fixture
def inpainting(tiny: Weights) -> Weights:
    """The tiny checkpoint, its U-Net's first layer seeing 9 channels."""
    unet = copy.deepcopy(tiny.unet)
    layer = nn.Conv2d(9, 32, 3, padding=1, dtype=torch.float32)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1)) / 10)
    unet.conv_in = layer.requires_grad_(requires_grad=False)
    unet.register_to_config(in_channels=9)
    return dataclasses.replace(tiny, unet=unet)


@torch.inference_mode()
def test_an_inpainting_checkpoint_sees_the_mask_and_the_masked_latent_as_they_are(inpainting: Weights) -> None:
    sigma, words = 1.7, context(inpainting, "sea")
    extra = torch.randn((5, 8, 8), generator=torch.Generator().manual_seed(2))
    assert inpainting.takes_mask
    seen = torch.cat([LATENT / math.hypot(1, sigma), extra])[None]
    noise = inpainting.unet(seen, torch.tensor([inpainting.sigmas.timestep(sigma)]), words[None]).sample[0]
    request = Denoise(inpainting, LATENT, sigma, (term(1, words, extra),), 1, 1)
    torch.testing.assert_close(only(denoise([request], is_exact=False)), LATENT - noise * sigma, rtol=0, atol=1e-3)


def test_a_picture_that_brings_no_mask_fails_alone(inpainting: Weights) -> None:
    sea = context(inpainting, "sea")
    good = Denoise(inpainting, LATENT, 1.0, (term(1, sea, torch.zeros(5, 8, 8)),), 1, 1)
    bad = Denoise(inpainting, LATENT, 1.0, (term(1, sea),), 1, 1)
    found = denoise([good, bad, good], is_exact=False)
    assert [type(one) for one in found] == [Tensor, RenderError, Tensor]


def test_embeddings_are_kept_and_exact_ones_are_made_anew(tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = with_empty_caches(tiny, 8)
    rows: list[int] = []
    original = embedding._encode_rows

    def counted(weights: Weights, encoder: Any, learned: Any, asked: Any) -> Any:
        rows.append(len(asked))
        return original(weights, encoder, learned, asked)

    monkeypatch.setattr(embedding, "_encode_rows", counted)
    a, b, c, empty = (said(weights, text) for text in ("a", "b", "c", ""))
    embed([a, empty, b, empty], is_exact=False)
    assert rows == [1, 1, 1]  # the empty prompt once; a chunk fills a CPU, where it then never rounds by others
    embed([a, c], is_exact=False)
    assert rows == [1] * 4
    embed([a, c], is_exact=True)
    assert rows == [1] * 6


def test_kept_embeddings_hold_no_more_than_themselves(tiny: Weights) -> None:
    """Not the whole batch that they were encoded in."""
    weights = with_empty_caches(tiny, 8)
    embed([said(weights, f"number {text}") for text in range(8)], is_exact=False)
    kept = weights.text_encoders[0].cache._values.values()
    assert [one.layer.untyped_storage().nbytes() for one in kept] == [77 * 64 * 4] * 8


def test_masks_are_made_once_for_contexts_of_some_lengths(tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = dataclasses.replace(tiny, masks=TensorCache(2))
    made: list[torch.Size] = []
    original = conditioning.to_device

    def noted(tensor: Tensor, to: Any) -> Tensor:
        if tensor.dtype == torch.bool:
            made.append(tensor.shape)
        return original(tensor, to)

    monkeypatch.setattr(conditioning, "to_device", noted)
    short, long = context(weights, "sea"), context(weights, "moon " * 100)
    mixed = (term(0.5, short), term(0.5, long))
    for _ in range(3):
        denoised(weights, 2.0, *mixed)
    assert made == [torch.Size((2, 154))]
    denoised(weights, 2.0, *mixed[::-1])
    assert len(made) == 2
    denoised(weights, 2.0, term(1, short))
    denoised(weights, 2.0, term(1, long))
    assert len(made) == 2, "contexts of one length need none"


@pytest.mark.parametrize("lengths", [(1,), (1, 1), (2, 1), (1, 2, 1), (5, 3), (6,)])
def test_contexts_are_laid_one_under_the_other_with_zeros_behind(lengths: tuple[int, ...]) -> None:
    contexts = [torch.full((77 * chunks, 2), float(chunks)) for chunks in lengths]
    padded = conditioning.padded(contexts, 77 * conditioning.padded_chunks(max(lengths)))
    assert padded.shape == (len(lengths), 77 * conditioning.padded_chunks(max(lengths)), 2)
    for row, chunks in zip(padded, lengths, strict=True):
        assert (row[: 77 * chunks] == chunks).all()
        assert (row[77 * chunks :] == 0).all()


def test_a_long_prompt_is_encoded_in_calls_of_the_text_budget(tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def counted(_: Weights, __: Any, ___: Any, asked: Any) -> Any:
        rows.append(len(asked))
        return [Encoded(torch.full((77, 64), float(row.tokens[1])), None) for row in asked]

    monkeypatch.setattr(embedding, "_encode_rows", counted)
    budget = tiny.device.text_budget
    words = [chr(ord("a") + number % 26) + f"{number}" for number in range(75 * (2 * budget + 3) // 3)]
    weights = with_empty_caches(tiny, 8)
    chunks = weights.tokenizer.chunks(" ".join(words))
    long = only(embed([Embed(weights, chunks)], is_exact=False)).context
    assert max(rows) == budget
    assert sum(rows) == len(chunks) > 2 * budget
    assert long[::77, 0].tolist() == [chunk.tokens[0] for chunk in chunks]


def test_the_embedding_that_was_asked_for_longest_ago_goes_first() -> None:
    kept: TensorCache[Tensor] = TensorCache(2)
    for chunk in ((1,), (2,)):
        kept.put(chunk, torch.tensor(chunk))
    kept.get((1,))
    kept.put((3,), torch.tensor(3))
    assert kept.get((2,)) is None
    assert kept.get((1,)) is not None


def test_a_cache_holds_as_many_tensors_as_their_sizes_allow() -> None:
    kept: TensorCache[Tensor] = TensorCache(10, len)
    for key, size in (("a", 4), ("b", 4), ("a", 4), ("c", 5)):
        kept.put(key, torch.zeros(size))
    assert ([kept.get(key) is not None for key in "abc"], kept.size) == ([True, False, True], 9)
    kept.put("d", torch.zeros(11))
    assert ([kept.get(key) for key in "abcd"], kept.size) == ([None] * 4, 0)


@torch.inference_mode()
def test_pixels_are_what_the_vae_decodes_and_come_back_as_their_latent(tiny: Weights) -> None:
    pixels = only(to_pixels([ToPixels(tiny, LATENT)]))
    torch.testing.assert_close(pixels, tiny.vae.decode(LATENT[None] / 0.5).sample[0])
    latent = only(to_latent([ToLatent(tiny, pixels)]))
    torch.testing.assert_close(latent, tiny.vae.encode(pixels[None]).latent_dist.mode()[0] * 0.5)


def test_a_network_of_its_own_is_applied_to_pixels() -> None:
    double = nn.Upsample(scale_factor=2)
    assert only(apply([Apply(double, torch.ones(3, 8, 8))])).shape == (3, 16, 16)


def test_requests_with_the_same_answer_are_one_row_of_a_network() -> None:
    rows: list[int] = []
    double = nn.Upsample(scale_factor=2)
    double.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    found = apply([Apply(double, torch.ones(3, 8, 8), answer_key="sea") for _ in range(3)])
    assert rows == [1]
    assert all(one is found[0] for one in found)
    assert len(found) == 3


def test_a_preview_has_the_colours_that_the_vae_gives_a_flat_latent(tiny: Weights) -> None:
    flat = torch.tensor([0.5, -0.3, 0.1, 0.2])[:, None, None].expand(4, 8, 8)
    pixels = only(to_pixels([ToPixels(tiny, flat)])).mean(dim=(1, 2))
    seen = mapped(flat, tiny.latent_rgb)
    assert seen.shape == (8, 8, 3)
    assert seen.dtype == np.uint8
    expected = ((pixels.clamp(-1, 1) + 1) * 127.5).numpy()
    assert np.abs(seen.mean(axis=(0, 1)) - expected).max() < 25


def test_a_preview_of_numbers_that_are_not_finite_is_a_picture_too(tiny: Weights) -> None:
    assert mapped(torch.full((4, 8, 8), torch.nan), tiny.latent_rgb).shape == (8, 8, 3)


def test_scaled_linear_betas_give_the_papers_ends() -> None:
    table = SigmaTable.scaled_linear()
    assert table.values[0] ** 2 == pytest.approx(0.00085 / (1 - 0.00085))
    assert len(table.values) == 1000
