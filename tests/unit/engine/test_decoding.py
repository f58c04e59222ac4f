"""From latents to pixels and back: large pictures, failing VAEs, and pictures that are none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared.errors import RenderError
from worker.engine import answers, decoding, tiles
from worker.engine.decoding import decoded, encoded
from worker.engine.engine import Engine
from worker.engine.requests import ToLatent, ToPixels
from worker.engine.seamless import seamless
from worker.engine.weights import Weights

SECONDS = 60


def latent(height: int = 8, width: int = 8, seed: int = 3) -> Tensor:
    return torch.randn((4, height, width), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything above 24 x 24 cells goes through the VAE in tiles."""
    monkeypatch.setattr(decoding, "LARGEST_CELLS", 24 * 24)
    monkeypatch.setattr(decoding, "TILE_SIDE", 24)


@pytest.fixture
def local(tiny: Weights) -> Weights:
    """The tiny checkpoint with a VAE that sees only so far: no attention, no norms over the whole picture."""
    vae = copy.deepcopy(tiny.vae)
    for name, part in list(vae.named_modules()):
        if isinstance(part, nn.GroupNorm):
            owner, _, attribute = name.rpartition(".")
            setattr(vae.get_submodule(owner), attribute, nn.Identity())
    for coder in (vae.encoder, vae.decoder):
        coder.mid_block.attentions[0] = nn.Identity()
        coder.mid_block.attentions[0].forward = lambda x, temb=None: x
    return tiny.with_vae(vae)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ToPixels | ToLatent]:
    """What the VAE has been asked."""
    seen: list[ToPixels | ToLatent] = []
    for kind in (ToPixels, ToLatent):
        original = answers._ANSWERS[kind]

        def answer(requests: Any, original: Callable[..., Any] = original) -> Any:
            seen.extend(requests)
            return original(requests)

        monkeypatch.setitem(answers._ANSWERS, kind, answer)
    return seen


# Tiles.


@pytest.mark.parametrize("length", [1, 23, 24, 25, 40, 47, 48, 49, 200, 256])
def test_spans_cover_a_length_evenly(length: int) -> None:
    spans = tiles.spans(length, side=24, overlap=8)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(end - start == min(24, length) for start, end in spans)
    assert all(before[1] - after[0] >= 8 for before, after in pairwise(spans))
    assert len({round(after[0] - before[0], -1) for before, after in pairwise(spans)}) <= 2


@pytest.mark.parametrize("wrap", [(0, 0), (8, 0), (8, 8)])
def test_tiles_of_a_whole_are_joined_to_that_whole(wrap: tuple[int, int]) -> None:
    whole = latent(40, 56)
    margins = (wrap[1], wrap[1], wrap[0], wrap[0])
    wide = nn.functional.pad(whole, margins, mode="circular")
    at = tiles.tiles(*wide.shape[1:], side=24, overlap=8)
    pieces = [tiles.cut(wide, tile) for tile in at]
    torch.testing.assert_close(tiles.joined(pieces, at, 8, wrap=wrap), whole)


def test_where_two_tiles_overlap_one_fades_into_the_other() -> None:
    at = tiles.tiles(4, 40, side=24, overlap=8)
    pieces = [torch.full((1, 4, 24), float(number)) for number in range(len(at))]
    row = tiles.joined(pieces, at, 8)[0, 0]
    assert (row.diff() >= 0).all()
    assert float(row.diff().max()) < 0.2


def test_a_picture_of_usual_size_goes_through_as_a_whole(engine: Engine, tiny: Weights, asked: list[Any]) -> None:
    engine.render(decoded(tiny, latent(16, 12))).result(SECONDS)
    assert [tuple(request.latent.shape) for request in asked] == [(4, 16, 12)]
    assert decoding.LARGEST_CELLS * 8**2 == 1024 * 1024


def test_a_large_picture_goes_through_tile_by_tile(
    engine: Engine, tiny: Weights, asked: list[Any], small_tiles: None
) -> None:
    pixels = engine.render(decoded(tiny, latent(32, 30))).result(SECONDS)
    assert pixels.shape == (3, 256, 240)
    assert {tuple(request.latent.shape) for request in asked} == {(4, 24, 24)}
    back = engine.render(encoded(tiny, pixels)).result(SECONDS)
    assert back.shape == (4, 32, 30)
    assert {tuple(request.pixels.shape) for request in asked[-2:]} == {(3, 192, 192)}


def test_tiles_say_what_the_whole_says_where_the_vae_sees_no_further_than_they_overlap(
    engine: Engine, local: Weights, small_tiles: None
) -> None:
    """Such a VAE's tiles differ from the whole only within its sight of an edge, where they have faded out."""
    large = latent(40, 36)
    (whole,) = answers.to_pixels([ToPixels(local, large)])
    pixels = engine.render(decoded(local, large)).result(SECONDS)
    assert float((pixels - whole).abs().mean()) < 0.02 * float(whole.std())
    (back,) = answers.to_latent([ToLatent(local, whole)])
    again = engine.render(encoded(local, whole)).result(SECONDS)
    assert float((again - back).abs().mean()) < 0.02 * float(back.std())


# Without seams.


def shifted(tensor: Tensor, cells: tuple[int, int], scale: int = 1) -> Tensor:
    return tensor.roll((cells[0] * scale, cells[1] * scale), dims=(1, 2))


@pytest.mark.parametrize(("tiling", "cells"), [("x", (0, 3)), ("y", (3, 0)), ("both", (5, 2))])
def test_a_picture_without_seams_does_not_know_where_it_starts(
    tiny: Weights, tiling: Any, cells: tuple[int, int]
) -> None:
    """Moved around in the latent, it is moved around in the pixels, over the edge."""
    endless = tiny.tiled(tiling)
    (pixels,) = answers.to_pixels([ToPixels(endless, latent())])
    (moved,) = answers.to_pixels([ToPixels(endless, shifted(latent(), cells))])
    torch.testing.assert_close(moved, shifted(pixels, cells, 8), rtol=0, atol=1e-3)
    (plain,) = answers.to_pixels([ToPixels(tiny, shifted(latent(), cells))])
    assert float((plain - moved).abs().max()) > 0.01


@pytest.mark.parametrize(("tiling", "across"), [("x", (3, 0)), ("y", (0, 3))])
def test_the_other_edges_keep_their_seam(tiny: Weights, tiling: Any, across: tuple[int, int]) -> None:
    endless = tiny.tiled(tiling)
    (pixels,) = answers.to_pixels([ToPixels(endless, latent())])
    (moved,) = answers.to_pixels([ToPixels(endless, shifted(latent(), across))])
    assert float((moved - shifted(pixels, across, 8)).abs().max()) > 0.01


def test_convolutions_are_as_before_after_the_block_and_after_an_error(tiny: Weights) -> None:
    before = answers.to_pixels([ToPixels(tiny, latent())])[0]
    with pytest.raises(ZeroDivisionError), seamless(tiny.vae, "both"):
        1 / 0  # noqa: B018 - the error is what is wanted
    assert not any("_conv_forward" in vars(part) for part in tiny.vae.modules())
    assert torch.equal(answers.to_pixels([ToPixels(tiny, latent())])[0], before)


def test_a_large_picture_without_seams_has_none_between_its_tiles_and_over_its_edges(
    engine: Engine, local: Weights, small_tiles: None
) -> None:
    endless, large = local.tiled("both"), latent(40, 36)
    (whole,) = answers.to_pixels([ToPixels(endless, large)])
    pixels = engine.render(decoded(endless, large)).result(SECONDS)
    assert float((pixels - whole).abs().mean()) < 0.02 * float(whole.std())


# What is no picture.


def overflowing(tiny: Weights, dtype: torch.dtype, factor: float) -> Weights:
    """The tiny checkpoint with a VAE whose values in between are `factor` as large, and its pixels as before."""
    vae = copy.deepcopy(tiny.vae)
    with torch.no_grad():
        vae.decoder.conv_norm_out.weight.mul_(factor)
        vae.decoder.conv_norm_out.bias.mul_(factor)
        vae.decoder.conv_out.weight.div_(factor)
        vae.encoder.conv_norm_out.weight.mul_(factor)
        vae.encoder.conv_norm_out.bias.mul_(factor)
        vae.encoder.conv_out.weight.div_(factor)
    return tiny.with_vae(nn.Module.to(vae, dtype))


def test_a_vae_that_overflows_is_asked_again_in_float32(engine: Engine, tiny: Weights, asked: list[Any]) -> None:
    half = overflowing(tiny, torch.float16, 60_000)
    (plain,) = answers.to_pixels([ToPixels(half, latent())])
    assert not plain.isfinite().all()
    asked.clear()
    pixels = engine.render(decoded(half, latent())).result(SECONDS)
    assert [request.is_precise for request in asked] == [False, True]
    full = half.with_vae(nn.Module.float(copy.deepcopy(half.vae)))
    torch.testing.assert_close(pixels, answers.to_pixels([ToPixels(full, latent())])[0])
    assert {weight.dtype for weight in half.vae.parameters()} == {torch.float16}
    assert engine.render(encoded(half, pixels)).result(SECONDS).isfinite().all()
    assert [request.is_precise for request in asked[2:]] == [False, True]


def test_a_vae_that_has_no_numbers_in_float32_either_is_named(engine: Engine, tiny: Weights, asked: list[Any]) -> None:
    for dtype, tries in ((torch.float16, 2), (torch.float32, 1)):
        asked.clear()
        vae = nn.Module.to(copy.deepcopy(tiny.vae), dtype)  # diffusers' own warns
        with torch.no_grad():
            vae.decoder.conv_out.bias.fill_(torch.nan)
        with pytest.raises(RenderError, match="the VAE's numbers are not finite"):
            engine.render(decoded(tiny.with_vae(vae), latent())).result(SECONDS)
        assert len(asked) == tries


def test_a_latent_that_holds_no_numbers_is_blamed_on_the_unet(engine: Engine, tiny: Weights, asked: list[Any]) -> None:
    with pytest.raises(RenderError, match="the U-Net's numbers are not finite"):
        engine.render(decoded(tiny, latent().fill_(torch.nan))).result(SECONDS)
    assert len(asked) == 1


def coloured(tiny: Weights, colour: float, weight: float) -> Weights:
    vae = copy.deepcopy(tiny.vae)
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(weight)
        vae.decoder.conv_out.bias.fill_(colour)
    return tiny.with_vae(vae)


@pytest.mark.parametrize("colour", [-1.0, -7.0])
def test_a_black_picture_is_no_success(engine: Engine, tiny: Weights, colour: float) -> None:
    with pytest.raises(RenderError, match="black"):
        engine.render(decoded(coloured(tiny, colour, 0.0), latent())).result(SECONDS)


def test_a_dark_picture_is_one(engine: Engine, tiny: Weights) -> None:
    pixels = engine.render(decoded(coloured(tiny, -1.0, 0.02), latent())).result(SECONDS)
    assert float(((pixels.clamp(-1, 1) + 1) * 127.5).round().mean()) < 3
