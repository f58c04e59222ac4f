"""Texts as each architecture's encoders read them, against transformers' own encoders and tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared.params.render import RenderParams
from shared.prompts.tokenizer import BOS, EOS, TOKENS
from tests.support import small_checkpoints
from tests.support.small_checkpoints import KINDS, Small
from tests.unit.engine.test_conditioning import answered
from worker.engine.answers.denoising import denoise
from worker.engine.architectures.conditioning import Conditioning
from worker.engine.architectures.weights import Weights
from worker.engine.guidance import conditioning
from worker.engine.requests import Denoise, Term

SHORT = "a red boat on the sea"
LONG = " ".join(f"boat {number}" for number in range(100))  # no commas: chunks are full, 75 tokens each
CHUNK = TOKENS - 2
KINDS_OF_TEXT = ["sd1", "sd2", "sdxl", "sdxl-refiner"]
ALIKE = {"rtol": 0, "atol": 2e-5}  # values are about 1

Loaded = Callable[[str], Weights]


@cache
def networks(kind: str) -> Small:
    return small_checkpoints.build(kind)


def prepared(weights: Weights, prompt: str, negative_prompt: str = "", **how: Any) -> tuple[Conditioning, Conditioning]:
    """The conditionings of both prompts, by the engine."""
    params = RenderParams(prompt=prompt, negative_prompt=negative_prompt, checkpoint="small", **how)
    found = answered(conditioning.prepare(weights, params, calls=4))
    (positive,) = found.conditional(0)
    return positive.conditioning, found.unconditional(0).conditioning


def rows(text: str, prefix: str) -> Tensor:
    """The tokens of a text [chunks, 77], by transformers: each chunk between BOS and EOS, and filled."""
    tokenizer = small_checkpoints.clip_tokenizer(prefix)
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    chunks = [tokens[start : start + CHUNK] for start in range(0, max(len(tokens), 1), CHUNK)]
    filled = [[BOS, *chunk, EOS, *[tokenizer.pad_token_id] * (CHUNK - len(chunk))] for chunk in chunks]
    return torch.tensor(filled)


@torch.inference_mode()
def layers(kind: str, text: str, clip_l: int = 2) -> list[Tensor]:
    """The layer of each encoder [chunks, 77, width], as its architecture reads it; `clip_l` counts from the end."""
    found = []
    for name, prefix in KINDS[kind].text_encoders.items():
        encoder = networks(kind).text_encoders[name]
        output = encoder(rows(text, prefix), output_hidden_states=True)
        if kind == "sd2":
            found.append(output.last_hidden_state)
        else:
            found.append(output.hidden_states[-2 if small_checkpoints.is_open_clip(prefix) else -clip_l])
    return [normed(kind, found[0])] if kind == "sd1" else found


def normed(kind: str, layer: Tensor) -> Tensor:
    norm: nn.Module = networks(kind).text_encoders["text_encoder"].final_layer_norm
    result: Tensor = norm(layer)
    return result


@torch.inference_mode()
def pooled(kind: str, text: str) -> Tensor:
    """The pooled vector of the first chunk, by OpenCLIP-G."""
    prefix = KINDS[kind].text_encoders["text_encoder_2"]
    found: Tensor = networks(kind).text_encoders["text_encoder_2"](rows(text, prefix)[:1]).text_embeds[0]
    return found


def joined(found: Sequence[Tensor]) -> Tensor:
    """Chunks behind each other, encoders beside each other [tokens, width]."""
    return torch.cat([layer.flatten(0, 1) for layer in found], dim=1)


@pytest.mark.parametrize("text", [SHORT, LONG, ""])
@pytest.mark.parametrize("kind", KINDS_OF_TEXT)
def test_a_text_of_any_length_is_read_as_by_transformers(kind: str, text: str, small: Loaded) -> None:
    positive, _ = prepared(small(kind), text)
    last = 1 if kind == "sd1" else 2
    torch.testing.assert_close(positive.context, joined(layers(kind, text, last)), **ALIKE)
    if "text_encoder_2" in KINDS[kind].text_encoders:
        torch.testing.assert_close(positive.pooled, pooled(kind, text), **ALIKE)
    else:
        assert positive.pooled is None


@pytest.mark.parametrize("keeps_mean", [True, False])
@pytest.mark.parametrize("kind", KINDS_OF_TEXT)
def test_emphasis_scales_each_encoder_by_itself_and_never_the_pooled_vector(
    kind: str, small: Loaded, *, keeps_mean: bool
) -> None:
    emphasis = "Original" if keeps_mean else "No norm"
    positive, _ = prepared(small(kind), "a (red boat:1.4) on the [sea]", emphasis=emphasis)
    scales = torch.ones(TOKENS, 1)
    scales[1:7, 0] = torch.tensor([1, 1.4, 1.4, 1, 1, 1 / 1.1])
    expected = []
    for plain in layers(kind, SHORT, 1 if kind == "sd1" else 2):
        scaled = plain * scales
        expected.append(scaled * (plain.mean() / scaled.mean()) if keeps_mean else scaled)
    torch.testing.assert_close(positive.context, joined(expected), rtol=1e-4, atol=1e-4)
    if positive.pooled is not None:
        torch.testing.assert_close(positive.pooled, pooled(kind, SHORT), **ALIKE)


@pytest.mark.parametrize("kind", ["sdxl", "sdxl-refiner"])
def test_an_empty_negative_prompt_is_zeros(kind: str, small: Loaded) -> None:
    weights = small(kind)
    positive, negative = prepared(weights, SHORT)
    assert negative.context.shape == positive.context.shape
    assert not negative.context.any()
    assert negative.pooled is not None
    assert not negative.pooled.any()
    assert positive.context.any()
    _, spoken = prepared(weights, SHORT, "snow")
    torch.testing.assert_close(spoken.context, joined(layers(kind, "snow")), **ALIKE)
    empty, _ = prepared(weights, "")  # only a negative prompt is zeroed
    assert empty.context.any()


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_an_empty_negative_prompt_is_a_text_elsewhere(kind: str, small: Loaded) -> None:
    _, negative = prepared(small(kind), SHORT)
    torch.testing.assert_close(negative.context, joined(layers(kind, "", 1 if kind == "sd1" else 2)), **ALIKE)


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_clip_skip_reads_an_earlier_layer_through_the_last_norm_on_sd_1(clip_skip: int, small: Loaded) -> None:
    positive, _ = prepared(small("sd1"), SHORT, clip_skip=clip_skip)
    torch.testing.assert_close(positive.context, joined(layers("sd1", SHORT, clip_skip)), **ALIKE)


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_clip_skip_moves_the_first_encoder_of_sdxl_only_if_that_is_asked_for(clip_skip: int, small: Loaded) -> None:
    weights = small("sdxl")
    moved, _ = prepared(weights, SHORT, clip_skip=clip_skip, sdxl_clip_l_skip=True)
    torch.testing.assert_close(moved.context, joined(layers("sdxl", SHORT, clip_skip)), **ALIKE)
    usual, _ = prepared(weights, SHORT, clip_skip=clip_skip)
    torch.testing.assert_close(usual.context, joined(layers("sdxl", SHORT)), **ALIKE)
    for one in (moved, usual):
        torch.testing.assert_close(one.pooled, pooled("sdxl", SHORT), **ALIKE)


@pytest.mark.parametrize("kind", ["sd2", "sdxl-refiner"])
def test_clip_skip_has_no_effect_where_the_layer_is_fixed(kind: str, small: Loaded) -> None:
    positive, _ = prepared(small(kind), SHORT, clip_skip=3, sdxl_clip_l_skip=True)
    torch.testing.assert_close(positive.context, joined(layers(kind, SHORT)), **ALIKE)


@pytest.mark.parametrize("kind", ["sdxl", "sdxl-refiner"])
@torch.inference_mode()
def test_a_long_prompt_beside_an_empty_negative_is_seen_as_in_a_call_for_each(kind: str, small: Loaded) -> None:
    weights, sigma, draw = small(kind), 2.0, torch.Generator().manual_seed(5)
    x = torch.randn(4, 8, 8, generator=draw)
    both = prepared(weights, LONG, width=64, height=96, crop={"left": 8, "top": 32})
    assert len(both[0].context) > 2 * len(both[1].context)
    terms = tuple(Term(share, one) for share, one in zip((5, -4), both, strict=True))
    (found,) = denoise([Denoise(weights, x, sigma, terms, 1, 1)], is_exact=False)
    sizes = [[96, 64, 32, 8, *([score] if kind == "sdxl-refiner" else [96, 64])] for score in (6.0, 2.5)]
    timestep = torch.tensor(weights.sigmas.timestep(sigma))
    noise = []
    for one, figures in zip(both, sizes, strict=True):
        added = {"text_embeds": one.pooled[None], "time_ids": torch.tensor([figures])}
        unet = networks(kind).unet
        noise.append(unet(x[None] / 5**0.5, timestep, one.context[None], added_cond_kwargs=added).sample[0])
    expected = x - sigma * (5 * noise[0] - 4 * noise[1])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
