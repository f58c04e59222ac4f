"""What only a card can show: this machine's, or as far as it can a pretended one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from shared.params.groups import Noise
from shared.params.render import RenderParams
from tests.support.checkpoints import NATIVE_SIZE, write_tiny
from worker.engine import devices, proof, transfers
from worker.engine.answers.denoising import denoise
from worker.engine.answers.embedding import embed
from worker.engine.architectures.conditioning import Conditioning
from worker.engine.architectures.weights import Weights
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import Picture, text_to_image
from worker.engine.requests import Denoise, Embed, Term
from worker.engine.sampling.noise import ImageNoise

pytestmark = pytest.mark.gpu

Load = Callable[[str, torch.dtype], Weights]


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors")


@pytest.fixture
def card() -> Iterator[Engine]:
    engine = Engine(devices.device("cuda:0"))
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def weights(tiny_path: Path) -> Load:
    """Loads the checkpoint on a device in a format, once a module."""
    return cache(lambda on, dtype: load.load(tiny_path, devices.device(on), dtype))


def render(engine: Engine, loaded: Weights, seed: int, *, exact: bool = False) -> Picture:
    params = RenderParams(prompt="sea", checkpoint="tiny", width=NATIVE_SIZE, height=NATIVE_SIZE, steps=2, seed=seed)
    return engine.render(text_to_image(params, Kit(loaded)), exact=exact).result(60)


def psnr(one: Picture, other: Picture) -> float:
    squares = ((one.astype(float) - other.astype(float)) ** 2).mean()
    return 99.0 if squares == 0 else 10 * np.log10(255**2 / squares)


def test_a_card_in_float32_paints_what_the_cpu_paints(card: Engine, weights: Load) -> None:
    cpu = Engine(devices.device("cpu"))
    cpu.start()
    expected = render(cpu, weights("cpu", torch.float32), seed=1)
    cpu.stop()
    assert psnr(render(card, weights("cuda:0", torch.float32), seed=1), expected) > 30


def test_half_precision_paints_nearly_the_same(card: Engine, weights: Load) -> None:
    half, full = (weights("cuda:0", dtype) for dtype in (torch.float16, torch.float32))
    assert psnr(render(card, half, seed=1), render(card, full, seed=1)) > 20


@pytest.mark.parametrize(
    "words", [("sea", "cat " * 80), ("sea", ""), ("(sea:1.3)", "")], ids=["padded", "even", "weighed"]
)
def test_nothing_waits_for_the_card_on_the_engines_thread(weights: Load, words: tuple[str, str]) -> None:
    half = weights("cuda:0", torch.float16)
    x = torch.zeros(4, NATIVE_SIZE // 8, NATIVE_SIZE // 8, device="cuda:0")

    def turn() -> None:
        texts = [Embed(half, half.tokenizer.chunks(text)) for text in words]
        prompt, negative = embed(texts, is_exact=True)
        assert isinstance(prompt, Conditioning), prompt
        assert isinstance(negative, Conditioning), negative
        terms = (Term(7.0, prompt), Term(-6.0, negative))
        (denoised,) = denoise([Denoise(half, x, 1.0, terms, 1, 1)], is_exact=True)
        assert isinstance(denoised, torch.Tensor), denoised  # an error is an answer as well
        next(noise)

    draws = transfers.pinned(ImageNoise(7, Noise(), half.latent, NATIVE_SIZE, NATIVE_SIZE).draws(2), half.device)
    noise = (transfers.to_device(one, half.device) for one in draws)
    turn()  # the first one loads kernels, which waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        turn()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_an_exact_picture_is_the_same_to_the_bit(card: Engine, weights: Load) -> None:
    half = weights("cuda:0", torch.float16)
    assert np.array_equal(render(card, half, 1, exact=True), render(card, half, 1, exact=True))


def test_memory_of_a_picture_is_measured_and_grows_with_it(card: Engine, weights: Load) -> None:
    half = weights("cuda:0", torch.float16)
    taken = []
    for size in (NATIVE_SIZE, 4 * NATIVE_SIZE):
        params = RenderParams(prompt="sea", checkpoint="tiny", width=size, height=size, steps=2, seed=1)
        peak = devices.MemoryPeak.since_now(half.device)
        assert peak is not None
        card.render(text_to_image(params, Kit(half))).result(60)
        taken.append(peak.bytes())
    assert 0 < taken[0] < taken[1] < half.device.memory_bytes
    assert sum(half.module_bytes().values()) < half.device.memory_bytes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_card_proves_itself_in_every_format(dtype: torch.dtype) -> None:
    proof.prove(devices.device("cuda:0"), dtype)
