"""Learned words in renders: as by diffusers, alone and in company, and for text encoders of their widths alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shared.params.render import RenderParams
from shared.prompts.learned_words import VOCABULARY
from shared.prompts.tokenizer import EOS
from tests.support import parity, references, small_checkpoints
from tests.support.conditioned import with_empty_caches
from tests.unit.engine.conftest import Small
from worker.engine.answers.calls import Calls
from worker.engine.answers.embedding import embed
from worker.engine.architectures.conditioning import Conditioning
from worker.engine.architectures.embeddings import Embedding
from worker.engine.architectures.weights import Weights
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render
from worker.engine.requests import Embed

SECONDS = parity.SECONDS
CLIP_L, OPEN_CLIP = small_checkpoints.CLIP_L_WIDTH, small_checkpoints.OPEN_CLIP_WIDTH


def embedding(number: int, vectors: int, **widths: int) -> Embedding:
    """An embedding with vectors by text encoder, as far from each other as those of words are."""
    draw = torch.Generator().manual_seed(number)
    drawn = {name: torch.randn(vectors, width, generator=draw) for name, width in widths.items()}
    return Embedding(f"{number:064x}", drawn)


def of_sd1(number: int, vectors: int) -> Embedding:
    return embedding(number, vectors, text_encoder=CLIP_L)


def of_sdxl(number: int, vectors: int) -> Embedding:
    return embedding(number, vectors, text_encoder=CLIP_L, text_encoder_2=OPEN_CLIP)


def encoded(weights: Weights, *texts: str, calls: Calls | None = None) -> list[Conditioning]:
    requests = [Embed(weights, weights.tokenizer.chunks(text, words=weights.words)) for text in texts]
    found = embed(requests, is_exact=False, calls=calls)
    assert all(isinstance(one, Conditioning) for one in found), found
    return [one for one in found if isinstance(one, Conditioning)]


def with_longer_table(weights: Weights, one: Embedding) -> Weights:
    """Return copies of the text encoders whose tables end with the vectors of an embedding, in float32."""
    encoders = []
    for encoder in weights.text_encoders:
        network = copy.deepcopy(encoder.network)
        table = replace(encoder, network=network).vocabulary
        table.weight = torch.nn.Parameter(torch.cat([table.weight, one.vectors[encoder.name]]), requires_grad=False)
        encoders.append(replace(encoder, network=network))
    return with_empty_caches(replace(weights, text_encoders=tuple(encoders)))


@pytest.mark.parametrize(("kind", "make"), [("sd1", of_sd1), ("sdxl", of_sdxl)])
def test_a_learned_word_is_read_as_more_rows_of_the_table(small: Small, kind: str, make: Any) -> None:
    one = make(1, 3)
    weights = with_empty_caches(small(kind)).taught({"ink": one})
    (found,) = encoded(weights, "a red ink boat")
    longer = with_longer_table(small(kind), one)
    chunks = weights.tokenizer.chunks("a red ink boat", words=weights.words)
    rows = {token: VOCABULARY + place for place, token in enumerate(one.word("ink").tokens)}
    numbered = tuple(chunk._replace(tokens=tuple(rows.get(token, token) for token in chunk.tokens)) for chunk in chunks)
    (expected,) = embed([Embed(longer, numbered)], is_exact=False)
    assert torch.equal(found.context, expected.context)
    assert kind == "sd1" or torch.equal(found.pooled, expected.pooled)
    assert not torch.equal(found.context, encoded(small(kind), "a red ink boat")[0].context)


def test_rows_without_a_learned_word_keep_their_bits(small: Small) -> None:
    texts = ["a cat", "an ink cat", "ink mood", "(mood:1.3), sea", "cat " * 80 + "ink"]
    words = {"ink": of_sd1(1, 2), "mood": of_sd1(2, 5)}
    taught = small("sd1").taught(words)
    alone = [encoded(with_empty_caches(taught), text)[0] for text in texts]
    together = encoded(with_empty_caches(taught), *texts)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.context, other.context, rtol=0, atol=1e-5)
    company = encoded(with_empty_caches(taught), *texts[:3])
    assert torch.equal(company[0].context, encoded(with_empty_caches(small("sd1")), "a cat", "b", "c")[0].context)
    table = taught.text_encoders[0].vocabulary
    assert not table._forward_hooks


def test_the_cache_tells_words_of_one_name_apart(small: Small) -> None:
    weights = with_empty_caches(small("sd1"))
    first, second = (weights.taught({"ink": of_sd1(number, 2)}) for number in (1, 2))
    one, other, plain = (encoded(view, "ink")[0].context for view in (first, second, weights))
    assert not torch.equal(one, other)
    assert not torch.equal(one, plain)
    assert torch.equal(encoded(first, "ink")[0].context, one)


def test_a_word_for_other_text_encoders_is_plain_text(small: Small) -> None:
    words = {"ink": of_sd1(1, 3), "mood": of_sdxl(2, 2), "old": embedding(3, 1, text_encoder=32)}
    text = "ink mood old"
    for kind, learned in (("sd1", ["ink"]), ("sdxl", ["mood"]), ("sd2", []), ("sdxl-refiner", [])):
        weights = with_empty_caches(small(kind)).taught(words)
        assert weights.tokenizer.measure(text, words=weights.words).words == {
            words[name].word(name) for name in learned
        }
        assert encoded(weights, text)[0].context.isfinite().all()


@pytest.mark.nightly  # by day the encoders' outputs are compared, above
@pytest.mark.parametrize(("kind", "make"), [("sd1", of_sd1), ("sdxl", of_sdxl)])
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, by numpy 2
def test_the_final_latent_is_that_of_diffusers(
    small: Small, engine: Engine, small_folder: Callable[[str], Path], kind: str, make: Callable[[int, int], Embedding]
) -> None:
    one = make(1, 3)
    params = parity.params_of(
        parity.Case(kind, {"prompt": "a red <ink> boat on the sea", "negative_prompt": "snow, <ink>"})
    )
    found = engine.render(parity.undecoded(render(params, Kit(small(kind).taught({"<ink>": one}))))).result(SECONDS)
    plain = engine.render(parity.undecoded(render(params, Kit(small(kind))))).result(SECONDS)
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(parity.SEED))[0]
    teach(references.pipeline(small_folder(kind)), one)
    expected = references.text_to_image(small_folder(kind), params, noise)
    torch.testing.assert_close(found, expected, rtol=0, atol=parity.BOUND)
    assert (plain - found).abs().max() > 100 * parity.BOUND


def test_each_pass_reads_the_words_of_its_own_checkpoint(small: Small, engine: Engine) -> None:
    """The second pass has other text encoders, for which another file of that name was made."""
    words = {"sd1/ink.pt": of_sd1(1, 3), "sd2/ink.bin": embedding(2, 2, text_encoder=OPEN_CLIP)}
    hires = {"scale": 1.5, "steps": 1, "denoising": 0.8, "checkpoint": "x"}
    params = RenderParams(prompt="an ink boat", checkpoint="x", width=64, height=64, steps=1, seed=3, hires=hires)

    def picture(first: Sequence[str], second: Sequence[str]) -> Tensor:
        known = [{name: words[name] for name in some} for some in (first, second)]
        kit = Kit(small("sd1").taught(known[0]), hires=small("sd2").taught(known[1]))
        found: Tensor = engine.render(parity.undecoded(render(params, kit))).result(SECONDS)
        return found

    both = picture([*words], [*words])
    assert torch.equal(both, picture(["sd1/ink.pt"], ["sd2/ink.bin"]))
    assert not torch.equal(both, picture(["sd1/ink.pt"], []))
    assert not torch.equal(both, picture([], ["sd2/ink.bin"]))


def teach(pipeline: Any, one: Embedding) -> None:
    """Have a pipeline of diffusers learn the word <ink>, which no other test says."""
    for name, vectors in one.vectors.items():
        network, tokenizer = getattr(pipeline, name), getattr(pipeline, name.replace("text_encoder", "tokenizer"))
        words = {"<ink>": torch.nn.Parameter(vectors)}
        pipeline.load_textual_inversion(words, token="<ink>", text_encoder=network, tokenizer=tokenizer)
        # By an old configuration transformers pools at the largest token, which is then a learned one.
        getattr(network, "text_model", network).eos_token_id = EOS


def test_pictures_with_learned_words_are_in_company_what_they_are_alone(small: Small, engine: Engine) -> None:
    words = {"ink-style": of_sd1(1, 3), "mood": of_sd1(2, 1)}
    every = [
        RenderParams(
            prompt=prompt, negative_prompt=negative, checkpoint="x", width=64, height=64, steps=2, seed=place,
            sampler="Euler", schedule="simple", cfg_scale=6.0,
        )
        for place, (prompt, negative) in enumerate(
            [("a cat", ""), ("an ink-style cat", "mood"), ("[mood:ink-style:2] sea", ""), ("a boat", "(mood:1.4)")]
        )
    ]  # fmt: skip
    plain = small("sd1")

    def start(params: RenderParams, weights: Weights) -> Any:
        mentions = "mood" in str(params) or "ink-style" in str(params)
        return engine.render(parity.undecoded(render(params, Kit(weights.taught(words) if mentions else weights))))

    alone = [start(params, with_empty_caches(plain)).result(SECONDS) for params in every]
    fresh = with_empty_caches(plain)
    together = [run.result(SECONDS) for run in [start(params, fresh) for params in every]]
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)
