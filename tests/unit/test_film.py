"""The steps of a picture, kept and shown."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from worker.engine.architectures.base import LatentSpace
from worker.engine.loop.runs import Step
from worker.engine.pipelines.film import MOST_SHOTS, Reel, Shot, developed
from worker.engine.pipelines.inputs import Kit
from worker.engine.requests import ToPixels, Work
from worker.render import film
from worker.renderer import Frame


def reel(steps: int) -> Reel:
    made = Reel()
    for index in range(1, steps + 1):
        made.take(Step(index, steps, torch.zeros(4, 1, 1), torch.full((4, 1, 1), float(index))))
    return made


@pytest.mark.parametrize("steps", [1, 2, 14, 15, 16, 20, 29, 30, 31, 59, 60, 61, 150, 1000])
def test_a_reel_keeps_evenly_spaced_steps(steps):
    kept = [shot.step for shot in reel(steps + 1).shots()]
    gaps = {after - before for before, after in pairwise(kept)}
    assert kept[0] == 1
    assert len(gaps) <= 1
    assert min(steps, MOST_SHOTS // 2) <= len(kept) <= MOST_SHOTS
    assert steps - kept[-1] <= max(gaps, default=1)


def test_a_reel_keeps_the_step_and_not_the_batch_that_it_was_computed_in():
    batch = torch.arange(8.0).reshape(2, 4, 1, 1)
    made = Reel()
    made.take(Step(1, 2, batch[0], batch[1]))
    [shot] = made.shots()
    assert torch.equal(shot.latent, batch[1])
    assert shot.latent.untyped_storage().nbytes() == 16


def test_a_reel_counts_the_steps_that_were_taken_and_not_those_that_were_expected():
    made = Reel()
    for index in (1, 2, 3):
        made.take(Step(index, 40, torch.zeros(4, 1, 1), torch.zeros(4, 1, 1)))
    assert made.steps == 3
    assert reel(5).steps == 5


def test_the_last_step_is_left_to_the_picture():
    assert [shot.step for shot in reel(3).shots()] == [1, 2]
    assert reel(1).shots() == []


class Checkpoint:
    """Weights of which the film wants no more than their name, their edges and the form of their latents."""

    has_precise_vae = True
    latent = LatentSpace(channels=4, cell=8)

    def tiled(self, tiling: str) -> Checkpoint:
        assert tiling == "x"
        return self


def asked_to_decode(kit: Kit, shots: list[Shot]) -> list[ToPixels]:
    """Develop `shots` as a card would, in grey; return what it was asked to decode."""
    asks, answer, asked = developed(kit, "x", shots), None, []
    while True:
        try:
            request = asks.send(answer)
        except StopIteration:
            return asked
        if isinstance(request, Work):
            answer = request.function()
        else:
            asked.append(request)
            answer = torch.zeros(3, *(8 * side for side in request.latent.shape[1:]))


def test_each_pass_is_developed_by_its_own_checkpoint():
    first, hires = Checkpoint(), Checkpoint()
    shots = [Shot(1, 3, torch.zeros(4, 2, 2)), Shot(2, 3, torch.zeros(4, 4, 4), is_second_pass=True)]
    assert [one.weights for one in asked_to_decode(Kit(first, hires=hires), shots)] == [first, hires]
    assert [one.weights for one in asked_to_decode(Kit(first), shots)] == [first, first]


@pytest.mark.parametrize(
    ("side", "small"), [((64, 48), (64, 48)), ((128, 96), (64, 48)), ((112, 144), (50, 64)), ((256, 1), (64, 1))]
)
def test_a_large_step_is_developed_small(side, small):
    [asked] = asked_to_decode(Kit(Checkpoint()), [Shot(1, 3, torch.ones(4, *side))])
    assert asked.latent.shape == (4, *small)
    torch.testing.assert_close(asked.latent, torch.ones(4, *small))


def frames(*sizes: tuple[int, int]) -> list[Frame]:
    """Frames of growing brightness, (width, height) each."""
    return [
        Frame(number, len(sizes), np.full((height, width, 3), 50 * number, dtype=np.uint8))
        for number, (width, height) in enumerate(sizes, 1)
    ]


def test_the_animation_shows_every_frame_at_the_picture_s_size():
    with Image.open(BytesIO(film.animation(frames((64, 32), (64, 32), (128, 64))))) as shown:
        assert (shown.format, shown.size, shown.n_frames) == ("WEBP", (128, 64), 3)
        brightness = []
        for number in range(3):
            shown.seek(number)
            brightness.append(np.asarray(shown.convert("L")).mean())
        assert shown.info["loop"] == 0
    assert brightness == pytest.approx([50, 100, 150], abs=3)


def test_a_large_picture_has_a_small_film():
    large = frames((2048, 1024))
    with Image.open(BytesIO(film.animation(large))) as shown:
        assert shown.size == (film.FILM_SIDE, film.FILM_SIDE // 2)
    with Image.open(BytesIO(film.strip(large))) as shown:
        assert shown.width == film.STRIP_SIDE


def test_the_strip_shows_the_frames_side_by_side_above_their_numbers():
    with Image.open(BytesIO(film.strip(frames((96, 64), (96, 64), (96, 64))))) as shown:
        pixels = np.asarray(shown.convert("L"))
    assert pixels.shape == (64 + 18, 3 * 96 + 2 * 4)
    assert [pixels[32, left + 48] for left in (0, 100, 200)] == pytest.approx([50, 100, 150], abs=4)
    assert (pixels[64:, :96] > 150).any(), "the number of the step"


def test_a_step_that_whole_cells_made_a_little_wider_has_no_bars():
    with Image.open(BytesIO(film.strip(frames((512, 400), (1152, 896))))) as shown:
        pixels = np.asarray(shown.convert("L"))
    assert pixels[:124, 0] == pytest.approx(50, abs=6)


def test_a_part_of_another_shape_is_shown_whole():
    with Image.open(BytesIO(film.strip(frames((64, 64), (128, 64))))) as shown:
        pixels = np.asarray(shown.convert("L"))
    assert pixels[32, 64] == pytest.approx(50, abs=4)
    assert pixels[32, 2] == pytest.approx(24, abs=4)
