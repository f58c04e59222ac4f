"""Calls of full-size networks, counted on a pretended card, take of it what bench/README.md says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from bench import calls
from tests.support import full_size
from tests.support.card_kernels import Card
from tests.support.card_ledger import Ledger
from worker.engine import devices
from worker.engine.architectures.weights import Weights
from worker.engine.requests import Denoise

GIB = 2**30


@pytest.fixture(scope="module")
def meta(pretended: Ledger) -> Iterator[Ledger]:
    """A pretended card whose tensors have no values, of any number of bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretended, "inner", "meta")
        patch.setattr(pretended, "capacity", calls.CAPACITY)
        yield pretended


@pytest.fixture(scope="module")
def sdxl(meta: Ledger) -> Weights:
    return full("sdxl")


@pytest.fixture
def ledger(meta: Ledger) -> Iterator[Ledger]:
    before = meta.live
    meta.clear()
    yield meta
    assert meta.errors == []
    assert not meta.waits
    assert meta.live == before


def full(name: str) -> Weights:
    weights = full_size.weights(name, torch.float16)
    devices.enter(weights.device)
    return weights


def test_sdxl_has_its_published_size() -> None:
    """Podell et al. 2023, table 1, and the parameters of diffusers' own networks."""
    counts = {name: sum(one.numel() for one in net.parameters()) for name, net in full_size.networks("sdxl").items()}
    assert counts == {
        "unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840,
    }  # fmt: skip


@pytest.mark.nightly
def test_a_denoising_call_of_sdxl_takes_what_the_table_says(sdxl: Weights, ledger: Ledger) -> None:
    two, sixteen = (calls.cost(ledger, calls.denoises(sdxl, rows)) for rows in (2, 16))
    assert two.flops == pytest.approx(2 * 6.76e12, rel=0.01)
    assert two.bytes == pytest.approx(43.9e9, rel=0.02)
    assert two.peak_bytes == pytest.approx(0.31 * GIB, rel=0.05)
    assert two.kernels == pytest.approx(1930, rel=0.02)
    assert sixteen.bytes == pytest.approx(315e9, rel=0.02)
    assert sixteen.peak_bytes == pytest.approx(2.47 * GIB, rel=0.05)
    assert sixteen.kernels - two.kernels == 3 * 7, "two terms and their sum a picture: all else is done for all rows"


@pytest.mark.nightly
def test_rows_of_different_pictures_take_the_kernels_of_equal_ones(sdxl: Weights, ledger: Ledger) -> None:
    equal = calls.denoises(sdxl, 4)
    expected = calls.cost(ledger, equal)
    different = [
        with_conditionings(replace(request, sigma=1.0 + at), sizes=(at,) * 6) for at, request in enumerate(equal)
    ]
    assert calls.cost(ledger, different) == expected


def test_contexts_of_different_lengths_take_a_kernel_a_layer_and_few_bytes(ledger: Ledger) -> None:
    weights = full("sd1")
    first, second = calls.denoises(weights, 4)
    longer = Card(torch.empty(2 * 77, 768, dtype=torch.float16, device="meta"))
    even = calls.cost(ledger, [with_conditionings(one, context=longer) for one in (first, second)])
    padded = calls.cost(ledger, [first, with_conditionings(second, context=longer)])
    assert padded.kernels - even.kernels == 16 + 4
    assert padded.bytes == pytest.approx(even.bytes, rel=0.001)


def with_conditionings(request: Denoise, **changes: object) -> Denoise:
    terms = tuple(replace(term, conditioning=replace(term.conditioning, **changes)) for term in request.terms)
    return replace(request, terms=terms)


def test_a_decode_of_sdxl_takes_what_the_table_says(sdxl: Weights, ledger: Ledger) -> None:
    half, precise = (calls.cost(ledger, [calls.decode(sdxl, is_precise=one)]) for one in (False, True))
    assert half.flops == precise.flops == pytest.approx(10.47e12, rel=0.01)
    assert half.bytes == pytest.approx(48.0e9, rel=0.02)
    assert half.peak_bytes == pytest.approx(1.50 * GIB, rel=0.05)
    assert precise.bytes == pytest.approx(96.5e9, rel=0.02)
    assert precise.peak_bytes == pytest.approx(3.31 * GIB, rel=0.05)


def test_stable_diffusion_1_takes_a_sixth_of_that(ledger: Ledger) -> None:
    two = calls.cost(ledger, calls.denoises(full("sd1"), 2))
    assert two.flops == pytest.approx(1.607e12, rel=0.01)
    assert two.bytes == pytest.approx(7.4e9, rel=0.02)
    assert two.peak_bytes == pytest.approx(0.13 * GIB, rel=0.05)
