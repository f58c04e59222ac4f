"""From latents to pixels and back: large pictures, failing VAEs, and invalid pictures."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.errors import OutOfMemory, RenderError
from shared.media.arrays import Pixels
from worker.engine import vae as decoding
from worker.engine.answers import answer as answer_module
from worker.engine.answers import pixels as pixel_answers
from worker.engine.answers.calls import FULL, NO_ROOM_SECONDS
from worker.engine.answers.pixels import to_latent, to_pixels
from worker.engine.answers.tiling import seamless
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.images import tiles
from worker.engine.images.tensors import to_tensor
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.requests import ToLatent, ToPixels
from worker.engine.vae import decoded, encoded

DEMO = Path(__file__).parents[3] / "models" / "Stable-diffusion" / "scenes-v1.safetensors"
SECONDS = 60


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def latent(height: int = 8, width: int = 8, seed: int = 3) -> Tensor:
    return torch.randn((4, height, width), generator=torch.Generator().manual_seed(seed))


def bytes_of(pixels: Tensor) -> Pixels:
    """Bytes [h, w, 3] of pixels [3, h, w] in -1..1, by numpy."""
    return np.rint((pixels.numpy().clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)


def apart(picture: Pixels, pixels: Tensor) -> float:
    """By how many of 255 levels the one differs from the other."""
    return float(np.abs(picture.astype(float) - bytes_of(pixels)).mean())


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything above 192 x 192 pixels goes through the VAE in tiles."""
    monkeypatch.setattr(decoding, "LARGEST_AREA", 192 * 192)
    monkeypatch.setattr(decoding, "TILE_SIDE", 192)


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
        original = answer_module._ANSWERS[kind]

        def answer(requests: Any, calls: Any = None, original: Callable[..., Any] = original) -> Any:
            seen.extend(requests)
            return original(requests, calls)

        monkeypatch.setitem(answer_module._ANSWERS, kind, answer)
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
    picture = engine.render(decoded(tiny, latent(16, 12))).result(SECONDS)
    (pixels,) = to_pixels([ToPixels(tiny, latent(16, 12))])
    assert np.array_equal(picture, bytes_of(pixels))
    assert [tuple(request.latent.shape) for request in asked] == [(4, 16, 12)]
    assert decoding.LARGEST_AREA == 1024 * 1024


def test_a_large_picture_goes_through_tile_by_tile(
    engine: Engine, tiny: Weights, asked: list[Any], small_tiles: None
) -> None:
    picture = engine.render(decoded(tiny, latent(32, 30))).result(SECONDS)
    assert picture.shape == (256, 240, 3)
    assert {tuple(request.latent.shape) for request in asked} == {(4, 24, 24)}
    back = engine.render(encoded(tiny, to_tensor(picture))).result(SECONDS)
    assert back.shape == (4, 32, 30)
    assert {tuple(request.pixels.shape) for request in asked[-2:]} == {(3, 192, 192)}


def test_tiles_say_what_the_whole_says_where_the_vae_sees_no_further_than_they_overlap(
    engine: Engine, local: Weights, small_tiles: None
) -> None:
    """Such a VAE's tiles differ from the whole only within its sight of an edge, where they have faded out."""
    large = latent(40, 36)
    (whole,) = to_pixels([ToPixels(local, large)])
    picture = engine.render(decoded(local, large)).result(SECONDS)
    assert apart(picture, whole) < 0.02 * float(bytes_of(whole).std())
    (back,) = to_latent([ToLatent(local, whole)])
    again = engine.render(encoded(local, whole)).result(SECONDS)
    assert float((again - back).abs().mean()) < 0.02 * float(back.std())


# Tiles for lack of memory.


def cells_of(request: ToPixels | ToLatent) -> int:
    return request.latent[0].numel() if isinstance(request, ToPixels) else request.pixels[0].numel() // 8**2


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Leaves room for so many cells in one call of the VAE."""

    def leave(cells: int) -> None:
        for way in ("_decode", "_encode"):
            original = getattr(pixel_answers, way)

            def call(requests: Any, original: Callable[..., Any] = original) -> Any:
                if sum(map(cells_of, requests)) > cells:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return original(requests)

            monkeypatch.setattr(pixel_answers, way, call)

    return leave


@pytest.fixture(params=[True, False], ids=["halves", "no halves"])
def either(cpu: Device, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine that makes calls that fail again in halves, as workers have one, and one that does not."""
    engine = Engine(cpu, halves=request.param)
    engine.start()
    yield engine
    engine.stop()


def test_a_picture_for_which_there_is_no_room_goes_through_in_tiles(
    engine: Engine, local: Weights, asked: list[Any], room: Callable[[int], None]
) -> None:
    """Such a VAE's tiles differ from the whole only where they have faded out: see above."""
    large = latent(36, 40)
    (whole,) = to_pixels([ToPixels(local, large)])
    (back,) = to_latent([ToLatent(local, whole)])
    room(32 * 32)
    picture = engine.render(decoded(local, large)).result(SECONDS)
    assert [cells_of(request) for request in asked] == [36 * 40, *[32 * 32] * 4]
    assert apart(picture, whole) < 0.02 * float(bytes_of(whole).std())
    asked.clear()
    again = engine.render(encoded(local, whole)).result(SECONDS)
    assert [cells_of(request) for request in asked] == [36 * 40, *[32 * 32] * 4]
    assert float((again - back).abs().mean()) < 0.02 * float(back.std())


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("side", "tile_side", "most_levels", "most_deviations"), [(72, 64, 10, 0.12), (40, 32, 20, 0.2)]
)
def test_a_picture_in_tiles_for_want_of_memory_is_nearly_the_same(
    cpu: Device, side: int, tile_side: int, most_levels: float, most_deviations: float
) -> None:
    """By the demo checkpoint's VAE, whose norms and attention see all of a tile but no more: tones differ."""
    weights = load.load(DEMO, cpu, torch.float32)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 8 * side), torch.linspace(-1, 1, 8 * side), indexing="ij")
    scene = torch.stack([x, y, (8 * x * y).sin()]) * 0.8
    (given,) = to_latent([ToLatent(weights, scene)])
    (whole,) = to_pixels([ToPixels(weights, given)])
    at = tiles.tiles(side, side, tile_side, decoding.OVERLAP // 8)
    pieces = [made for tile in at for made in to_pixels([ToPixels(weights, tiles.cut(given, tile))])]
    picture = bytes_of(tiles.joined(pieces, at, decoding.OVERLAP // 8, 8))
    assert apart(picture, whole) < most_levels
    parts = [made for tile in at for made in to_latent([ToLatent(weights, tiles.cut(scene, tile, 8))])]
    again = tiles.joined(parts, at, decoding.OVERLAP // 8)
    assert float((again - given).abs().mean()) < most_deviations * float(given.std())


def test_tiles_become_smaller_until_there_is_room(
    engine: Engine, tiny: Weights, asked: list[Any], room: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "LARGEST_AREA", 320 * 320)
    monkeypatch.setattr(decoding, "TILE_SIDE", 320)
    monkeypatch.setattr(decoding, "SMALLER_SIDES", (256, 192))
    room(24 * 24)
    assert engine.render(decoded(tiny, latent(48, 44))).result(SECONDS).shape == (384, 352, 3)
    sides = [request.latent.shape[1] for request in asked]
    assert sides == [40, 32, *[24] * 16]


@pytest.fixture
def on_small_card(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Engine, list[None], Clock]]:
    """An engine as workers have one, how often it asked for what is idle to leave the card, and its clock."""
    monkeypatch.setattr(decoding, "SMALLER_SIDES", (128, 64))
    monkeypatch.setattr(decoding, "OVERLAP", 32)
    drops: list[None] = []
    clock = Clock()
    engine = Engine(cpu, halves=True, on_full=lambda: bool(drops.append(None)), clock=clock)
    engine.start()
    yield engine, drops, clock
    engine.stop()


def test_what_had_no_room_is_not_tried_for_a_minute_and_drops_nothing_from_the_card(
    on_small_card: tuple[Engine, list[None], Clock], tiny: Weights, room: Callable[[int], None]
) -> None:
    engine, drops, clock = on_small_card
    full = lambda: engine.broken_calls[FULL]  # noqa: E731 - many times
    room(8 * 8)
    for _ in range(3):
        assert engine.render(decoded(tiny, latent(18, 18))).result(SECONDS).shape == (144, 144, 3)
    assert full() == 2, "the whole and a tile of 16 x 16, of the first picture"
    pixels = torch.zeros(3, 96, 96)
    for _ in range(2):
        assert engine.render(encoded(tiny, pixels)).result(SECONDS).shape == (4, 12, 12)
    assert full() == 3, "of the other way through the VAE nothing was known"
    engine.render(decoded(tiny, latent(10, 10))).result(SECONDS)
    assert full() == 4, "a smaller picture might have had room"
    clock.now += NO_ROOM_SECONDS
    engine.render(decoded(tiny, latent(10, 10))).result(SECONDS)
    assert full() == 5, "there may be room again"
    assert drops == []


def test_what_is_idle_leaves_the_card_before_the_smallest_tiles_fail(
    on_small_card: tuple[Engine, list[None], Clock], tiny: Weights, room: Callable[[int], None]
) -> None:
    engine, drops, _ = on_small_card
    room(4)
    with pytest.raises(OutOfMemory):
        engine.render(decoded(tiny, latent(18, 18))).result(SECONDS)
    assert len(drops) == 1


@pytest.mark.parametrize("sides", [[8], [40, 32], [72, 64, 32], [136, 96, 64, 32]], ids=str)
def test_a_picture_for_which_no_tile_is_small_enough_says_that_memory_ran_out(
    either: Engine, tiny: Weights, asked: list[Any], room: Callable[[int], None], sides: list[int]
) -> None:
    room(4)
    with pytest.raises(OutOfMemory, match="not enough memory"):
        either.render(decoded(tiny, latent(sides[0], sides[0]))).result(SECONDS)
    assert [request.latent.shape[1] for request in asked] == sides[-len(asked) :]
    assert len(asked) == min(3, len(sides))


def test_what_fails_otherwise_is_not_tried_in_tiles(
    either: Engine, tiny: Weights, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> Any:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(pixel_answers, "_decode", refuse)
    with pytest.raises(RenderError, match="no such kernel"):
        either.render(decoded(tiny, latent(40, 40))).result(SECONDS)
    assert len(asked) == 1


def test_a_large_picture_without_seams_has_none_where_there_is_room_for_tiles_alone(
    engine: Engine, local: Weights, room: Callable[[int], None]
) -> None:
    endless, large = local.tiled("x"), latent(34, 34)
    (whole,) = to_pixels([ToPixels(endless, large)])
    room(32 * 32)
    picture = engine.render(decoded(endless, large)).result(SECONDS)
    assert apart(picture, whole) < 0.02 * float(bytes_of(whole).std())


# Without seams.


def shifted(tensor: Tensor, cells: tuple[int, int], scale: int = 1) -> Tensor:
    return tensor.roll((cells[0] * scale, cells[1] * scale), dims=(1, 2))


@pytest.mark.parametrize(("tiling", "cells"), [("x", (0, 3)), ("y", (3, 0)), ("both", (5, 2))])
def test_a_picture_without_seams_does_not_know_where_it_starts(
    tiny: Weights, tiling: Any, cells: tuple[int, int]
) -> None:
    """Moved around in the latent, it is moved around in the pixels, over the edge."""
    endless = tiny.tiled(tiling)
    (pixels,) = to_pixels([ToPixels(endless, latent())])
    (moved,) = to_pixels([ToPixels(endless, shifted(latent(), cells))])
    torch.testing.assert_close(moved, shifted(pixels, cells, 8), rtol=0, atol=1e-3)
    (plain,) = to_pixels([ToPixels(tiny, shifted(latent(), cells))])
    assert float((plain - moved).abs().max()) > 0.01


@pytest.mark.parametrize(("tiling", "across"), [("x", (3, 0)), ("y", (0, 3))])
def test_the_other_edges_keep_their_seam(tiny: Weights, tiling: Any, across: tuple[int, int]) -> None:
    endless = tiny.tiled(tiling)
    (pixels,) = to_pixels([ToPixels(endless, latent())])
    (moved,) = to_pixels([ToPixels(endless, shifted(latent(), across))])
    assert float((moved - shifted(pixels, across, 8)).abs().max()) > 0.01


def test_convolutions_are_as_before_after_the_block_and_after_an_error(tiny: Weights) -> None:
    before = to_pixels([ToPixels(tiny, latent())])[0]
    with pytest.raises(ZeroDivisionError), seamless(tiny.vae, "both"):
        1 / 0  # noqa: B018 - the error is what is wanted
    assert not any("_conv_forward" in vars(part) for part in tiny.vae.modules())
    assert torch.equal(to_pixels([ToPixels(tiny, latent())])[0], before)


@pytest.mark.nightly
def test_a_large_picture_without_seams_has_none_between_its_tiles_and_over_its_edges(
    engine: Engine, local: Weights, small_tiles: None
) -> None:
    endless, large = local.tiled("both"), latent(40, 36)
    (whole,) = to_pixels([ToPixels(endless, large)])
    picture = engine.render(decoded(endless, large)).result(SECONDS)
    assert apart(picture, whole) < 0.02 * float(bytes_of(whole).std())


# Invalid pictures.


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
    (plain,) = to_pixels([ToPixels(half, latent())])
    assert not plain.isfinite().all()
    asked.clear()
    picture = engine.render(decoded(half, latent())).result(SECONDS)
    assert [request.is_precise for request in asked] == [False, True]
    full = half.with_vae(nn.Module.float(copy.deepcopy(half.vae)))
    (pixels,) = to_pixels([ToPixels(full, latent())])
    assert np.array_equal(picture, bytes_of(pixels))
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
    picture = engine.render(decoded(coloured(tiny, -1.0, 0.02), latent())).result(SECONDS)
    assert picture.mean() < 3
    assert picture.max() > 0
