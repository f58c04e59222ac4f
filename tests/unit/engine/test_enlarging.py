"""Pictures through networks over pixels: tiles, rounds, sizes, and cards without room."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from shared.errors import OutOfMemory, Spoilt
from shared.media.arrays import Pixels
from tests.support import upscalers
from worker.engine.devices import Device
from worker.engine.loop.engine import Engine
from worker.engine.upscaling import architectures, enlarging

SECONDS = 60


class Blocks(nn.Module):
    """Enlarges by blocks, and records the sides of what it was given."""

    def __init__(self, scale: int = 2, most_cells: int = 10**9) -> None:
        super().__init__()
        self.scale = scale
        self.most_cells = most_cells
        self.sides: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.sides.append(max(pixels.shape[2:]))
        if pixels[0, 0].numel() > self.most_cells:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return nn.functional.interpolate(pixels, scale_factor=float(self.scale), mode="nearest")


def photograph(height: int, width: int) -> Pixels:
    """Soft shapes with edges and some grain."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    waves = np.stack([np.sin(rows / 17 + k) * np.cos(columns / (11 + k)) for k in range(3)], axis=2)
    discs = ((rows - height / 2) ** 2 + (columns - width / 3) ** 2 < (min(height, width) / 4) ** 2)[..., None] * 60
    grain = np.random.default_rng(2).normal(0, 6, (height, width, 3))
    return (110 + 60 * waves + discs + grain).clip(0, 255).astype(np.uint8)


@pytest.fixture
def enlarge(engine: Engine, cpu: Device) -> Callable[..., Pixels]:
    def enlarge(network: Any, pixels: Pixels, width: int, height: int, **options: bool) -> Pixels:
        return engine.render(enlarging.enlarged_by(network, pixels, (width, height), cpu, **options)).result(SECONDS)

    return enlarge


# Tiles.


@pytest.mark.parametrize(("height", "width"), [(192, 192), (200, 400), (1, 500), (385, 193), (7, 5)])
def test_tiles_lie_where_they_were_cut(height: int, width: int, enlarge: Callable[..., Pixels]) -> None:
    pixels = photograph(height, width)
    made = enlarge(Blocks(2), pixels, 2 * width, 2 * height)
    assert np.array_equal(made, pixels.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("name", ["Compact", "SwinIR"])
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_tiles_show_no_seam(name: str, enlarge: Callable[..., Pixels], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enlarging, "SIDES", (96, 48))
    network = architectures.built(upscalers.weights(name, gain=1.4))
    pixels, scale = photograph(100, 150), network.scale
    made = enlarge(network, pixels, 150 * scale, 100 * scale)
    with torch.inference_mode():
        whole = network(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)[0]
    expected = whole.mul(255).round().permute(1, 2, 0).numpy()
    assert np.abs(expected - pixels.repeat(scale, axis=0).repeat(scale, axis=1)).mean() > 10  # the network does much
    difference = np.abs(made - expected)
    assert difference.max() <= 3
    assert difference.mean() < 0.02


@pytest.mark.parametrize("side", enlarging.SIDES)
def test_tiles_cover_every_length_and_share_the_overlap(side: int) -> None:
    for length in range(1, 700):
        spans = enlarging._spans(length, side)
        starts, ends = zip(*spans, strict=True)
        assert (starts[0], ends[-1]) == (0, length)
        assert all(end - start <= side and start % 16 == 0 for start, end in spans)
        assert all(end - start >= enlarging.OVERLAP for start, end in zip(starts[1:], ends, strict=False))


def test_a_band_of_tiles_at_a_time_is_held(enlarge: Callable[..., Pixels]) -> None:
    held: list[int] = []

    class Counted(Blocks):
        def __init__(self) -> None:
            super().__init__()
            self.made: list[weakref.ref[Tensor]] = []

        def forward(self, pixels: Tensor) -> Tensor:
            self.made.append(weakref.ref(made := super().forward(pixels)))
            held.append(sum(one() is not None for one in self.made))
            return made

    enlarge(Counted(), photograph(900, 400), 800, 1800)
    assert len(held) == 3 * 6
    assert max(held) <= 6  # two bands of three


# Cards without room.


def test_without_room_the_tiles_are_halved(enlarge: Callable[..., Pixels]) -> None:
    network, pixels = Blocks(2, most_cells=10_000), photograph(200, 210)
    made = enlarge(network, pixels, 420, 400)
    assert np.array_equal(made, pixels.repeat(2, axis=0).repeat(2, axis=1))
    assert network.sides[0] == 192
    assert network.sides.count(192) <= 2  # beside a narrow one, which has room; the others of its size were not tried
    assert len(network.sides) <= 11
    assert network.sides[-9] == 96


def test_without_room_for_the_smallest_tile_the_picture_fails(enlarge: Callable[..., Pixels]) -> None:
    with pytest.raises(OutOfMemory):
        enlarge(Blocks(2, most_cells=1000), photograph(200, 210), 420, 400)


def test_a_network_without_finite_numbers_spoils_the_picture(enlarge: Callable[..., Pixels]) -> None:
    class Broken(Blocks):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels) * float("nan")

    with pytest.raises(Spoilt, match="upscaler"):
        enlarge(Broken(), photograph(20, 20), 40, 40)


# Sizes.


@pytest.mark.parametrize(
    ("scale", "width", "height", "given"),
    [
        (2, 60, 40, [30]),
        (4, 60, 40, [30]),  # more than enough: Lanczos shrinks it
        (2, 90, 60, [30, 60]),
        (2, 600, 400, [30, 60, 120]),  # three rounds at most: Lanczos does the rest
        (1, 60, 40, [30]),  # it does not enlarge: once
        (1, 15, 10, [30]),
        (2, 30, 20, []),
        (2, 15, 10, []),
        (2, 60, 10, [30]),  # each side must be covered
    ],
)
def test_a_network_is_applied_until_its_result_covers_the_size(
    scale: int, width: int, height: int, given: list[int], enlarge: Callable[..., Pixels]
) -> None:
    network = Blocks(scale)
    assert enlarge(network, photograph(20, 30), width, height).shape == (height, width, 3)
    assert network.sides == given


def test_lanczos_and_nearest_need_no_network(enlarge: Callable[..., Pixels]) -> None:
    pixels = photograph(20, 30)
    picture = Image.fromarray(pixels)
    assert np.array_equal(enlarge(None, pixels, 75, 50), picture.resize((75, 50), Image.Resampling.LANCZOS))
    blocks = enlarge(None, pixels, 75, 50, is_nearest=True)
    assert np.array_equal(blocks, picture.resize((75, 50), Image.Resampling.NEAREST))


def test_a_result_of_a_gigabyte_is_made_of_a_smaller_picture(
    enlarge: Callable[..., Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enlarging, "MOST_PIXELS", 4000)
    network = Blocks(8)
    assert enlarge(network, photograph(20, 30), 31, 20).shape == (20, 31, 3)
    (side,) = network.sides
    assert 8 <= side <= 9  # 9 * 6 * 64 pixels
