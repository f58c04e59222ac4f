"""Mistakes of the kinds that a card punishes are seen on the pretended one: this is the list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared.errors import RenderError
from shared.params.render import RenderParams
from tests.support.card_ledger import Ledger
from tests.support.checkpoints import NATIVE_SIZE, write_tiny
from worker.engine.answers import denoising
from worker.engine.architectures.weights import Weights
from worker.engine.devices import device
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.pipelines import denoise_pass, render
from worker.engine.pipelines.inputs import Kit

pytestmark = pytest.mark.gpu

Mistake = Callable[[Weights, ExitStack, pytest.MonkeyPatch], object]


@pytest.fixture(scope="module")
def half(pretended: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weights]:
    path = write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors")
    return load.load(path, device("cuda:0"), torch.float16)


def painted(weights: Weights) -> None:
    """Paint a picture whose prompts are of two lengths: they are filled up and masked."""
    params = RenderParams(
        prompt="sea", negative_prompt="cat " * 80, checkpoint="tiny", width=NATIVE_SIZE, height=NATIVE_SIZE,
        steps=2, sampler="Euler a", seed=1,
    )  # fmt: skip
    engine = Engine(weights.device)
    engine.start()
    try:
        engine.render(render.render(params, Kit(weights))).result(60)
    finally:
        engine.stop()


def before(network: nn.Module, until: ExitStack, change: Callable[..., tuple[Any, Any]]) -> None:
    """Change what a network is called with."""
    hook = network.register_forward_pre_hook(lambda _, args, kwargs: change(*args, **kwargs), with_kwargs=True)
    until.callback(hook.remove)


def sigmas_on_the_host(weights: Weights, until: ExitStack, _: pytest.MonkeyPatch) -> None:
    before(weights.unet, until, lambda x, times, *rest, **kwargs: ((x, torch.ones(len(times)), *rest), kwargs))


def noise_on_the_host(weights: Weights, _: ExitStack, patch: pytest.MonkeyPatch) -> None:
    def drawn(way: denoise_pass.Pass) -> Any:
        draws = yield from denoise_pass.drawn(way)
        return replace(draws, step=lambda *_: torch.zeros(draws.first.shape))

    patch.setattr(render, "drawn", drawn)


def contexts_in_float32(weights: Weights, until: ExitStack, _: pytest.MonkeyPatch) -> None:
    before(weights.unet, until, lambda x, times, context, **kwargs: ((x, times, context.float()), kwargs))


def half_latents_into_a_bfloat16_vae(weights: Weights, until: ExitStack, _: pytest.MonkeyPatch) -> None:
    before(weights.require_vae().post_quant_conv, until, lambda latents: ((latents.half(),), {}))


def a_number_read_between_steps(weights: Weights, until: ExitStack, _: pytest.MonkeyPatch) -> None:
    hook = weights.unet.register_forward_hook(lambda *called: float(called[-1][0].abs().max()) and None)
    until.callback(hook.remove)


def the_mask_on_the_host(weights: Weights, until: ExitStack, _: pytest.MonkeyPatch) -> None:
    def change(*args: Any, encoder_attention_mask: Tensor, **kwargs: Any) -> tuple[Any, Any]:
        return args, {"encoder_attention_mask": torch.ones(encoder_attention_mask.shape, dtype=torch.bool), **kwargs}

    before(weights.unet, until, change)


def sigmas_sent_and_waited_for(weights: Weights, _: ExitStack, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(denoising, "to_device", lambda tensor, to: tensor.to(to.torch))


def a_step_on_a_stream_that_nobody_waits_for(weights: Weights, until: ExitStack, _: pytest.MonkeyPatch) -> None:
    stream = torch.cuda.Stream()
    first = weights.unet.conv_in
    plain = first.forward

    def beside(x: Tensor) -> Tensor:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            return plain(x)

    first.forward = beside
    until.callback(partial(delattr, first, "forward"))


MISTAKES: dict[Mistake, str] = {
    sigmas_on_the_host: "cuda:0 and cpu",
    noise_on_the_host: "cuda:0 and cpu",
    contexts_in_float32: "one number format",
    half_latents_into_a_bfloat16_vae: "Input type (c10::Half) and bias type (c10::BFloat16) should be the same",
    a_number_read_between_steps: "a number read from the card",
    the_mask_on_the_host: "cuda:0 and cpu",
    sigmas_sent_and_waited_for: "blocking copy to the card",
    a_step_on_a_stream_that_nobody_waits_for: "may still write",
}
"""Each mistake, and by which words it is seen."""


def seen(ledger: Ledger) -> list[str]:
    """What the ledger holds against a run: on the engine's thread nothing may wait."""
    return [*ledger.errors, *(entry.what for entry in ledger.waits_of("engine"))]


def test_a_picture_without_a_mistake_is_clean(half: Weights, pretended: Ledger) -> None:
    pretended.clear()
    painted(half)
    assert seen(pretended) == []


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_planted_mistake_is_seen(
    half: Weights, pretended: Ledger, monkeypatch: pytest.MonkeyPatch, mistake: Mistake
) -> None:
    pretended.clear()
    failed = []
    with ExitStack() as until:
        mistake(half, until, monkeypatch)
        try:
            painted(half)
        except RenderError as error:  # some spoil the picture too
            failed = [str(error)]
    found = [*seen(pretended), *failed]
    pretended.settle()
    assert any(MISTAKES[mistake] in what for what in found), found
