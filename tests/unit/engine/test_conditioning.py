"""The conditioning of the U-Net by prompts at each model call, on a tiny checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from shared.errors import RenderError
from shared.params.render import RenderParams
from shared.prompts.tokenizer import BOS, EOS
from tests.support.conditioned import with_empty_caches
from worker.engine.answers.embedding import embed
from worker.engine.architectures.conditioning import Conditioning
from worker.engine.architectures.sd1 import SD1
from worker.engine.architectures.weights import Weights
from worker.engine.guidance import conditioning
from worker.engine.guidance.conditioning import Prompt
from worker.engine.loop.engine import Engine
from worker.engine.pipelines import render
from worker.engine.pipelines.inputs import Kit
from worker.engine.requests import Embed, Work


def prepared(weights: Weights, prompt: str, negative_prompt: str = "", *, calls: int = 10, **how: Any) -> Prompt:
    base_calls = how.pop("base_calls", None)
    params = RenderParams(prompt=prompt, negative_prompt=negative_prompt, checkpoint="tiny", **how)
    return answered(conditioning.prepare(weights, params, calls=calls, base_calls=base_calls))


def answered(run: Generator[Any, Any, Any]) -> Any:
    """What a generator returns whose requests are answered on the spot, each by itself."""
    answer = None
    while True:
        try:
            asked = run.send(answer)
        except StopIteration as end:
            return end.value
        answer = asked.function() if isinstance(asked, Work) else tuple(embed(asked, is_exact=True))


def said(weights: Weights, text: str, *, emphasis: str = "Original", **how: Any) -> Tensor:
    """The context of one text."""
    chunks = weights.tokenizer.chunks(text, emphasis)
    (found,) = embed([Embed(weights, chunks, **how)], is_exact=True)
    assert isinstance(found, Conditioning), found
    return found.context


def told(prompt: Prompt, calls: int, *known: Tensor) -> str:
    """Which of the `known` contexts a prompt has at each call, as their places."""
    contexts = [prompt.conditional(call)[0].conditioning.context for call in range(calls)]
    return "".join(str(next(i for i, one in enumerate(known) if torch.equal(one, context))) for context in contexts)


def test_the_first_segment_lasts_a_call_longer_than_it_says(tiny: Weights) -> None:
    a, b = said(tiny, "cat"), said(tiny, "dog")
    assert told(prepared(tiny, "[cat:dog:5]"), 10, a, b) == "0000001111"
    assert told(prepared(tiny, "[cat:dog:0.5]", calls=20), 20, a, b) == "0" * 11 + "1" * 9
    assert told(prepared(tiny, "[cat|dog]"), 10, a, b) == "0010101010"


def test_a_prompt_stays_when_there_are_more_calls_than_steps(tiny: Weights) -> None:
    a, b = said(tiny, "cat"), said(tiny, "dog")
    assert told(prepared(tiny, "[cat:dog:2]", calls=4), 9, a, b) == "000111111"


def test_a_hires_pass_counts_on(tiny: Weights) -> None:
    a, b = said(tiny, "cat"), said(tiny, "dog")
    later = prepared(tiny, "[cat:dog:23]", calls=10, base_calls=20)
    assert told(later, 10, a, b) == "0000111111"
    assert told(prepared(tiny, "[cat:dog:5]", calls=10, base_calls=20), 10, a, b) == "1" * 10


def test_parts_keep_their_weights_and_their_own_times(tiny: Weights) -> None:
    prompt = prepared(tiny, "cat :1.5 AND [dog:cow:3] :-0.5 AND sea")
    first, later = prompt.conditional(0), prompt.conditional(9)
    assert [term.weight for term in first] == [1.5, -0.5, 1.0]
    assert first[0].conditioning.context is later[0].conditioning.context
    assert torch.equal(first[1].conditioning.context, said(tiny, "dog"))
    assert torch.equal(later[1].conditioning.context, said(tiny, "cow"))


def test_a_negative_prompt_is_edited_but_has_no_parts(tiny: Weights) -> None:
    prompt = prepared(tiny, "sea", "[dog:cow:3] AND rain:1.2")
    assert prompt.unconditional(0).weight == 1
    assert torch.equal(prompt.unconditional(0).conditioning.context, said(tiny, "dog AND rain:1.2"))
    assert torch.equal(prompt.unconditional(9).conditioning.context, said(tiny, "cow AND rain:1.2"))


def test_a_text_keeps_its_length_while_it_is_edited(tiny: Weights) -> None:
    prompt = prepared(tiny, "[sea BREAK sky:moon:5]", "cat " * 200)
    longer, shorter = prompt.conditional(0)[0].conditioning.context, prompt.conditional(9)[0].conditioning.context
    assert len(longer) == len(shorter) == 2 * 77
    assert torch.equal(shorter[:77], said(tiny, "moon"))
    assert torch.equal(shorter[77:], said(tiny, ""))
    assert len(prompt.unconditional(0).conditioning.context) == 3 * 77


def test_the_same_text_is_embedded_once(tiny: Weights) -> None:
    run = conditioning.prepare(
        tiny, RenderParams(prompt="[a|b] AND a", negative_prompt="b", checkpoint="tiny"), calls=20
    )
    work = next(run)
    assert isinstance(work, Work)
    assert len(run.send(work.function())) == 2


def test_words_are_scaled_by_their_weight_and_the_chunk_to_its_mean(tiny: Weights) -> None:
    plain, bare = said(tiny, "red cat"), said(tiny, "red (cat:1.5)", keeps_mean=False)
    scales = torch.ones(77, 1)
    scales[2] = 1.5
    torch.testing.assert_close(bare, plain * scales)
    whole = said(tiny, "red (cat:1.5)")
    torch.testing.assert_close(whole.mean(), plain.mean())
    torch.testing.assert_close(whole / bare, (plain.mean() / bare.mean()).expand_as(bare), rtol=1e-3, atol=1e-5)


def test_emphasis_is_as_it_is_asked_for(tiny: Weights) -> None:
    def conditional(emphasis: str) -> Tensor:
        return prepared(tiny, "red (cat:1.5)", emphasis=emphasis).conditional(0)[0].conditioning.context

    assert torch.equal(conditional("Original"), said(tiny, "red (cat:1.5)"))
    assert torch.equal(conditional("No norm"), said(tiny, "red (cat:1.5)", keeps_mean=False))
    assert torch.equal(conditional("Ignore"), said(tiny, "red cat"))
    assert torch.equal(conditional("None"), said(tiny, "red (cat:1.5)", emphasis="None"))
    assert not torch.equal(conditional("None"), conditional("Ignore"))


@pytest.mark.parametrize("weights", ["0", "-1", "1e6"])
def test_any_weight_leaves_numbers(tiny: Weights, weights: str) -> None:
    assert said(tiny, f"(cat:{weights.replace('1e6', '1000000')})").isfinite().all()


def test_company_has_no_part_in_emphasis(tiny: Weights) -> None:
    weights = with_empty_caches(tiny, 64)
    texts = ["red (cat:1.5)", "(sea:0.3)", "((((storm))))" * 20, ""]
    requests = [Embed(weights, weights.tokenizer.chunks(text)) for text in texts]
    together = embed(requests, is_exact=False)
    for text, found in zip(texts, together, strict=True):
        torch.testing.assert_close(found.context, said(tiny, text), rtol=1e-4, atol=1e-5)


def test_a_kept_chunk_is_weighed_anew(tiny: Weights) -> None:
    weights = with_empty_caches(tiny, 8)
    light, heavy = (Embed(weights, weights.tokenizer.chunks(f"(cat:{weight})")) for weight in (0.5, 1.5))
    first, second, again = (embed([one], is_exact=False)[0].context for one in (light, heavy, light))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@torch.inference_mode()
def test_clip_skip_reads_an_earlier_layer(tiny: Weights) -> None:
    config = CLIPTextConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=1)
    encoder = CLIPTextModel(config).eval()
    weights = dataclasses.replace(tiny, text_encoders=SD1().text_encoders({"text_encoder": encoder}))
    tokens = weights.tokenizer.encode("red cat")
    row = torch.tensor([[BOS, *tokens, *[EOS] * (76 - len(tokens))]])
    layers = encoder(input_ids=row, output_hidden_states=True).hidden_states
    for skip in (1, 2, 3):
        expected = encoder.final_layer_norm(layers[len(layers) - skip])[0]
        torch.testing.assert_close(said(weights, "red cat", clip_skip=skip), expected)
        torch.testing.assert_close(
            prepared(weights, "red cat", clip_skip=skip).conditional(0)[0].conditioning.context, expected
        )
    requests = [Embed(weights, weights.tokenizer.chunks("red cat"), clip_skip=skip) for skip in (1, 2)]
    first, second = embed(requests, is_exact=False)
    assert not torch.equal(first.context, second.context)  # kept apart, though of one call


def test_clip_skip_beyond_the_layers_is_refused_with_their_number(tiny: Weights) -> None:
    with pytest.raises(RenderError, match=r"clip skip 2 is too deep: .* has 1 layer"):
        prepared(tiny, "sea", clip_skip=2)


@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("", ""),
        ("(sea:1.4) AND [moon|sun] :0.5", "[rain::2]"),
        ("a BREAK b BREAK c", "cat, " * 60),
        ("🌅🏖️ غروب الشمس", "(لا شيء:0.5)"),
        ("sea:-1", "storm"),
    ],
    ids=["empty", "all", "breaks", "scripts", "away"],
)
def test_every_prompt_makes_a_picture(tiny: Weights, engine: Engine, prompt: str, negative: str) -> None:
    params = RenderParams(prompt=prompt, negative_prompt=negative, width=64, height=64, steps=3, seed=7)
    picture = engine.render(render.text_to_image(params, Kit(tiny))).result(timeout=120)
    assert picture.shape == (64, 64, 3)
