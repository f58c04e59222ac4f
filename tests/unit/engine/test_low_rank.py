"""Low-rank adapters by rows: as if they were merged, whatever else the call holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.params.groups import Refiner
from shared.params.render import RenderParams
from tests.support import low_rank
from tests.support.conditioned import with_empty_caches
from tests.unit.engine.conftest import Small
from worker.engine.adapters.low_rank import Factors, LowRank, rank_on_ladder
from worker.engine.adapters.rows import adapted
from worker.engine.answers.denoising import denoise
from worker.engine.answers.embedding import embed
from worker.engine.architectures.conditioning import Applied, Conditioning
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render
from worker.engine.requests import Denoise, Embed, Term

KINDS = ("sd1", "sdxl", pytest.param("sd2", marks=pytest.mark.nightly))
BY_DAY = (("sd1", None), ("sdxl", low_rank.ATTENTION))
CASES = pytest.mark.parametrize(
    ("kind", "layers"),
    [
        pytest.param(kind, layers, marks=() if (kind, layers) in BY_DAY else pytest.mark.nightly)
        for kind in ("sd1", "sd2", "sdxl")
        for layers in (low_rank.ATTENTION, None)
    ],
    ids=lambda value: value if isinstance(value, str) else "every layer" if value is None else "attention",
)
BOUND = 1e-4  # of a latent, whose values are about 1


def denoising(weights: Weights, seed: int, *rows: tuple[Applied, ...]) -> Denoise:
    """A call with a row for each of `rows`, of random texts."""
    draw = torch.Generator().manual_seed(seed)
    blank = weights.architecture.blank(weights.unet)

    def term(adapters: tuple[Applied, ...]) -> Term:
        context = torch.randn(blank.context.shape, generator=draw)
        pooled = None if blank.pooled is None else torch.randn(blank.pooled.shape, generator=draw)
        conditioning = Conditioning(context, blank.chunk, pooled, (512.0,) * len(blank.sizes), adapters=adapters)
        return Term(1 / len(rows), conditioning)

    x = torch.randn(weights.latent.channels, 8, 8, generator=draw) * 4
    return Denoise(weights, x, 3.0, tuple(map(term, rows)), 1, 1)


def answers(*requests: Denoise) -> list[Tensor]:
    return [answer for answer in denoise(requests, is_exact=False) if isinstance(answer, Tensor)]


def steps(params: RenderParams, **changes: object) -> RenderParams:
    return params.model_copy(update={"width": 64, "height": 64, "steps": 3, "sampler": "Euler", **changes})


def rendered(engine: Engine, params: RenderParams, weights: Weights, adapters: Mapping[str, LowRank]) -> np.ndarray:
    return picture(engine, params, Kit(with_empty_caches(weights), adapters=adapters))


def picture(engine: Engine, params: RenderParams, kit: Kit) -> np.ndarray:
    rendered: np.ndarray = engine.render(render(params, kit)).result()
    return rendered


@CASES
def test_a_row_with_adapters_is_what_merged_weights_make_of_it(
    small: Small, kind: str, layers: Sequence[str] | None
) -> None:
    weights = small(kind)
    one, other = (low_rank.drawn(weights, seed, rank, layers=layers) for seed, rank in ((1, 4), (2, 12)))
    (by_rows,) = answers(denoising(weights, 5, (Applied(one, 0.8), Applied(other, -0.5))))
    (expected,) = answers(denoising(low_rank.merged(weights, [(one, 0, 0.8), (other, 0, -0.5)]), 5, ()))
    (without,) = answers(denoising(weights, 5, ()))
    assert (by_rows - expected).abs().max() < BOUND
    assert (without - expected).abs().max() > 100 * BOUND


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_with_adapters_is_read_as_by_merged_text_encoders(small: Small, kind: str) -> None:
    weights = with_empty_caches(small(kind))
    adapter = low_rank.drawn(weights, 3)
    text = weights.tokenizer.chunks("a red sailboat at sea")
    (by_rows,) = embed([Embed(weights, text, adapters=(Applied(adapter, 0.7),))], is_exact=False)
    (expected,) = embed([Embed(low_rank.merged(weights, [(adapter, 0.7, 0)]), text)], is_exact=False)
    (without,) = embed([Embed(weights, text)], is_exact=False)
    assert isinstance(by_rows, Conditioning)
    assert isinstance(expected, Conditioning)
    assert isinstance(without, Conditioning)
    assert (by_rows.context - expected.context).abs().max() < BOUND
    assert (without.context - expected.context).abs().max() > 100 * BOUND
    if by_rows.pooled is not None and expected.pooled is not None:
        assert (by_rows.pooled - expected.pooled).abs().max() < BOUND


def test_texts_are_remembered_by_the_adapters_that_read_them(small: Small) -> None:
    weights = with_empty_caches(small("sd1"))
    text = weights.tokenizer.chunks("sea")
    one, other = low_rank.drawn(weights, 1), low_rank.drawn(weights, 2)
    uses = [(), (Applied(one, 1.0),), (Applied(one, 0.5),), (Applied(other, 1.0),), (Applied(one, 1.0, 2),)]
    first, again = (embed([Embed(weights, text, adapters=use) for use in uses], is_exact=False) for _ in range(2))
    contexts = [one.context for one in first if isinstance(one, Conditioning)]
    assert len({tuple(context.flatten().tolist()) for context in contexts}) == len(uses)
    for context, other_one in zip(contexts, again, strict=True):
        assert isinstance(other_one, Conditioning)
        assert torch.equal(context, other_one.context)


def test_an_adapter_of_the_u_net_alone_shares_texts_with_pictures_without_one(small: Small) -> None:
    weights = with_empty_caches(small("sd1"))
    adapter = low_rank.drawn(weights, 1, texts=False)
    calls: list[object] = []
    hook = weights.text_encoders[0].network.register_forward_pre_hook(lambda *_: calls.append(None))
    text = weights.tokenizer.chunks("sea")
    embed([Embed(weights, text), Embed(weights, text, adapters=(Applied(adapter, 1.0),))], is_exact=False)
    hook.remove()
    assert len(calls) == 1


@CASES
def test_rows_with_any_adapters_share_a_call_and_are_what_they_are_alone(
    small: Small, kind: str, layers: Sequence[str] | None
) -> None:
    weights = small(kind)
    one, other, wide = (low_rank.drawn(weights, 1 + place, rank, layers=layers) for place, rank in enumerate((4, 4, 9)))
    sets = [
        (), (Applied(one, 1.0),), (Applied(other, -0.5),), (Applied(one, 0.3), Applied(wide, 1.5)),
        (Applied(wide, 0.8, 3),), (Applied(other, 1.0), Applied(one, 1.0), Applied(wide, 0.2)), (Applied(one, 0.0),),
    ]  # fmt: skip
    requests = [denoising(weights, seed, each, each) for seed, each in enumerate(sets)]
    alone = [answers(request)[0] for request in requests]
    together = answers(*requests)
    for answer, expected in zip(together, alone, strict=True):
        assert torch.equal(answer, expected)
    for answer, expected in zip(answers(*reversed(requests)), reversed(alone), strict=True):
        assert torch.equal(answer, expected)
    assert torch.equal(together[-1], *answers(denoising(weights, len(sets) - 1, (), ())))


def test_of_a_low_rank_adapter_so_many_ranks_are_used_as_a_tag_says(small: Small) -> None:
    weights = small("sd1")
    adapter = low_rank.drawn(weights, 1, rank=6)
    cut = replace(adapter, networks={"unet": {p: shortened(one, 2) for p, one in adapter.networks["unet"].items()}})
    (used,) = answers(denoising(weights, 5, (Applied(adapter, 1.0, 2),)))
    (expected,) = answers(denoising(weights, 5, (Applied(cut, 1.0),)))
    assert (used - expected).abs().max() < BOUND / 10


def shortened(factors: Factors, rank: int) -> Factors:
    return Factors(factors.down[:rank].contiguous(), factors.up[:, :rank].contiguous())


@pytest.mark.parametrize(("rank", "filled"), [(1, 4), (4, 4), (5, 8), (33, 64), (128, 128), (200, 200)])
def test_ranks_are_filled_up_to_a_ladder(rank: int, filled: int) -> None:
    assert rank_on_ladder(rank) == filled
    factors = Factors.of(torch.ones(rank, 3), torch.ones(5, rank), 0.5)
    assert factors.rank == filled
    assert torch.allclose(factors.up @ factors.down, torch.full((5, 3), 0.5 * rank))


def test_a_network_is_as_before_after_a_call_and_after_a_failure(small: Small, cpu: Device) -> None:
    weights = small("sd1")
    adapter = low_rank.drawn(weights, 1, layers=None)

    def fail() -> None:
        with adapted(weights.unet, "unet", [(Applied(adapter, 1.0),)], cpu):
            assert any("forward" in vars(layer) for layer in weights.unet.modules())
            raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        fail()
    assert not any("forward" in vars(layer) for layer in weights.unet.modules())


@torch.inference_mode()
def test_one_adapter_inside_of_another_leaves_the_outer_one(cpu: Device) -> None:
    layer = nn.Sequential(nn.Linear(3, 3, bias=False))
    factors = Factors.of(torch.eye(3), torch.eye(3), 1.0)
    adapter = LowRank("a" * 64, "twice", "sd1", {"unet": {"0": factors}})
    x, row = torch.ones(1, 3), [(Applied(adapter, 1.0),)]
    with adapted(layer, "unet", row, cpu):
        with adapted(layer, "unet", row, cpu):
            both = layer(x)
        one = layer(x)
    assert torch.allclose(both - one, x)
    assert torch.allclose(one - layer(x), x)


@pytest.mark.parametrize("tiling", ["none", "both"])
def test_tags_in_a_prompt_bring_adapters_to_both_prompts_and_to_the_text_encoders(
    engine: Engine, params: RenderParams, small: Small, tiling: str
) -> None:
    weights = small("sd1")
    adapter = low_rank.drawn(weights, 1, layers=None)
    plain = steps(params, prompt="sea at night", negative_prompt="fog", tiling=tiling)
    tagged = steps(plain, prompt="sea at night<lora:drawn:0.6:0.4>")
    by_rows = rendered(engine, tagged, weights, {"lora:drawn": adapter})
    expected = rendered(engine, plain, low_rank.merged(weights, [(adapter, 0.6, 0.4)]), {})
    assert np.abs(by_rows.astype(int) - expected).max() <= 1
    assert np.abs(rendered(engine, plain, weights, {}).astype(int) - expected).max() > 8


def test_each_pass_of_hires_fix_has_the_adapters_of_its_own_prompt(
    engine: Engine, params: RenderParams, small: Small
) -> None:
    weights = small("sd1")
    adapters = {"lora:a": low_rank.drawn(weights, 1), "lora:b": low_rank.drawn(weights, 2)}
    hires = {"scale": 1.5, "steps": 2, "prompt": "sea <lora:b>", "denoising": 0.7}
    whole = RenderParams.model_validate(steps(params, prompt="sea <lora:a>").model_dump() | {"hires": hires})
    second = RenderParams.model_validate(whole.model_dump() | {"hires": hires | {"prompt": "sea <lora:a>"}})
    pictures = [rendered(engine, one, weights, adapters) for one in (whole, second)]
    assert (pictures[0] != pictures[1]).any()


def test_a_weight_by_step_changes_on_the_way(engine: Engine, params: RenderParams, small: Small) -> None:
    weights = small("sd1")
    adapters = {"lora:a": low_rank.drawn(weights, 1)}

    def tagged(tag: str) -> np.ndarray:
        return rendered(engine, steps(params, prompt=f"sea {tag}", steps=4), weights, adapters)

    never, always = tagged("<lora:a:te=0:unet=0>"), tagged("<lora:a:te=0:unet=1>")
    assert np.array_equal(tagged("<lora:a:te=0:unet=0@0,0@1>"), never)
    assert np.array_equal(tagged("<lora:a:te=0:unet=1@0,1@1>"), always)
    late = tagged("<lora:a:te=0:unet=0@0.74,1@0.75>")
    assert (late != never).any()
    assert (late != always).any()


def test_a_refiner_renders_without_the_adapters_of_the_checkpoint(
    engine: Engine, params: RenderParams, small: Small
) -> None:
    weights = small("sd1")
    adapter = low_rank.drawn(weights, 1)
    refined = steps(params, prompt="sea <lora:a:0.5>", steps=4, refiner=Refiner(checkpoint="refiner", switch_at=0.5))
    base = low_rank.merged(weights, [(adapter, 0.5, 0.5)])
    expected = picture(engine, steps(refined, prompt="sea ", steps=4), Kit(base, refiner=with_empty_caches(weights)))
    by_rows = picture(engine, refined, Kit(with_empty_caches(weights), weights, adapters={"lora:a": adapter}))
    assert np.abs(by_rows.astype(int) - expected).max() <= 1
