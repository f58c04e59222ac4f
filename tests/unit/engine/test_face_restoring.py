"""Faces that are restored: only they change, without a seam, and the same ones each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from shared.errors import OutOfMemory, Spoilt
from shared.media.arrays import Pixels
from shared.params.faces import Faces
from shared.params.upscale import Upscale
from tests.support.faces import BOX, EYES, Paints, Sharpens, astronaut, pixels
from worker.engine.devices import Device
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.upscale import UpscaleKit, upscaled
from worker.engine.upscaling import face_restoring
from worker.engine.upscaling.face_detector import found

SECONDS = 60


@pytest.fixture
def restore(engine: Engine, cpu: Device) -> Callable[..., Pixels]:
    def restore(network: Any, picture: Image.Image | Pixels, **options: float) -> Pixels:
        faces = Faces(restorer="sharp", **options)
        return engine.render(face_restoring.restored(network, np.asarray(picture), faces, cpu)).result(SECONDS)

    return restore


def outside(made: Pixels, before: Pixels, box: tuple[int, ...] = BOX) -> int:
    """How many pixels outside of the box changed."""
    left, top, right, bottom = box
    changed = (made != before).any(axis=2)
    changed[top:bottom, left:right] = False
    return int(changed.sum())


# The pixels that change.


@pytest.mark.parametrize("there", [(-4000, -4000), (256, 256)])
def test_a_second_look_that_finds_no_face_in_the_picture_is_not_followed(
    restore: Callable[..., Pixels], monkeypatch: pytest.MonkeyPatch, there: tuple[float, float]
) -> None:
    before = pixels(astronaut())
    monkeypatch.setattr(face_restoring.face_detector, "middle_one", lambda _: None)
    once = restore(Sharpens(), before)
    monkeypatch.setattr(face_restoring.face_detector, "middle_one", lambda _: np.full((5, 2), there, float))
    assert (restore(Sharpens(), before) == once).all()


def test_only_the_face_changes(restore: Callable[..., Pixels]) -> None:
    network, before = Sharpens(), pixels(astronaut())
    made = restore(network, before)
    assert network.shapes == [(1, 3, 512, 512)]
    assert outside(made, before) == 0
    face = np.s_[70:170, 190:260]
    assert np.abs(made[face].astype(int) - before[face]).mean() > 5


def test_a_network_that_changes_nothing_leaves_the_face_as_it_was(restore: Callable[..., Pixels]) -> None:
    for side in (128, 900):
        before = pixels(astronaut(side))
        difference = np.abs(restore(Sharpens(0), before).astype(int) - before)
        assert difference.max() <= 32
        assert difference.mean() < 0.1


def test_a_face_fades_in_without_a_seam(restore: Callable[..., Pixels]) -> None:
    flat = np.full((512, 512, 3), 120, np.uint8)
    cut, answer = torch.full((3, 512, 512), 120 / 255), torch.linspace(0, 1, 512).expand(3, 512, 512)
    face_restoring._lay_back(flat, cut, answer, face_restoring.alignment(face_restoring._PLACES / 2 + 100), 1.0)
    steps = max(np.abs(np.diff(flat.astype(int), axis=axis)).max() for axis in (0, 1))
    assert flat.max() - flat.min() > 60
    assert steps <= 4


def test_a_face_keeps_its_colours(restore: Callable[..., Pixels]) -> None:
    before = pixels(astronaut())
    made = restore(Paints(0.0, 1.0, 0.0), before)
    face = np.s_[95:135, 205:245]
    assert np.abs(made[face].mean((0, 1)) - before[60:190, 170:280].mean((0, 1))).max() < 45  # not (0, 255, 0)
    left, top, right, bottom = BOX
    assert np.abs(made[top:bottom, left:right].mean((0, 1)) - before[top:bottom, left:right].mean((0, 1))).max() < 3


def test_strength_is_the_share_of_the_restored_face(restore: Callable[..., Pixels]) -> None:
    before = pixels(astronaut()).astype(int)
    whole, half = (restore(Sharpens(), astronaut(), strength=one).astype(int) - before for one in (1.0, 0.5))
    assert np.abs(half - whole / 2).max() <= 1


@pytest.mark.parametrize("degrees", [-30, 30])
def test_a_turned_face_is_restored_upright(degrees: float) -> None:
    before = pixels(astronaut().rotate(degrees, resample=Image.Resampling.BICUBIC))
    (place,), (straight,) = (face_restoring._places(one) for one in (before, pixels(astronaut())))
    angles = [np.degrees(np.arctan2(one[1, 0], one[0, 0])) for one in (place, straight)]
    assert abs(angles[0] - angles[1] - degrees) < 6


def test_every_face_is_restored_from_the_picture_as_it_was(restore: Callable[..., Pixels]) -> None:
    picture = Image.new("RGB", (1024, 512), "grey")
    picture.paste(astronaut(), (0, 0))
    picture.paste(astronaut(), (512, 0))
    network, before = Sharpens(), pixels(picture)
    made = restore(network, before)
    assert network.shapes == [(1, 3, 512, 512)] * 2
    for left in (0, 512):
        face = np.s_[70:170, left + 190 : left + 260]
        assert np.abs(made[face].astype(int) - before[face]).mean() > 5


def test_a_face_at_the_edge_is_restored(restore: Callable[..., Pixels]) -> None:
    before = pixels(astronaut().crop((200, 40, 512, 400)))
    made = restore(Sharpens(), before)
    assert np.abs(made[30:130, :60].astype(int) - before[30:130, :60]).mean() > 5
    assert outside(made, before, (0, 0, 110, 180)) == 0


def test_a_face_of_many_blocks_is_restored_as_a_whole(
    restore: Callable[..., Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = restore(Sharpens(), astronaut())
    monkeypatch.setattr(face_restoring, "_BLOCK", 37)
    parts = restore(Sharpens(), astronaut()).astype(int)
    assert np.abs(parts - whole).max() <= 1


def test_a_large_face_becomes_smaller_by_averages() -> None:
    checks = np.indices((2048, 2048)).sum(axis=0) % 2 * 255
    places = face_restoring._PLACES * 4
    square = face_restoring._cut_out(np.dstack([checks] * 3).astype(np.uint8), face_restoring.alignment(places))
    assert np.abs(square[50:-50, 50:-50].astype(int) - 128).max() < 30


def test_points_go_to_their_places_by_shift_turn_and_scale() -> None:
    angle, scale = 0.7, 0.31
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = face_restoring._PLACES @ turn.T + (40, -7)
    place = face_restoring.alignment(points)
    assert np.allclose(points @ place[:, :2].T + place[:, 2], face_restoring._PLACES)
    noisy = points + np.random.default_rng(0).normal(0, 4, points.shape)
    place = face_restoring.alignment(noisy)

    def error(at: np.ndarray) -> float:
        return float(((noisy @ at[:, :2].T + at[:, 2] - face_restoring._PLACES) ** 2).sum())

    turned = np.array([[0, -1e-3, 0], [1e-3, 0, 0]])
    shifted, larger = np.array([[0, 0, 0.1], [0, 0, 0.1]]), place * [[1.001, 1.001, 1]]
    assert all(error(one) >= error(place) for one in (place + turned, place - turned, place + shifted, larger))


# The pixels that stay.


def test_a_picture_without_a_face_stays_as_it_is(restore: Callable[..., Pixels]) -> None:
    network = Sharpens()
    for picture in (np.zeros((300, 200, 3), np.uint8), np.zeros((1, 1, 3), np.uint8)):
        assert restore(network, picture) is picture
    assert not network.shapes


def test_the_same_picture_comes_out_each_time(restore: Callable[..., Pixels]) -> None:
    assert np.array_equal(restore(Sharpens(), astronaut()), restore(Sharpens(), astronaut()))


class Convolves(nn.Conv2d):
    def forward(self, given: torch.Tensor, fidelity: float) -> torch.Tensor:
        return super().forward(given)


def test_pictures_in_company_are_those_alone(engine: Engine, cpu: Device) -> None:
    network, options = Convolves(3, 3, 5, padding=2), Faces(restorer="sharp")
    pictures = [pixels(astronaut(200)), pixels(astronaut(100))]
    with torch.inference_mode():
        alone = [engine.render(_restored(network, one, options, cpu)).result(SECONDS) for one in pictures]
        runs = [engine.render(_restored(network, one, options, cpu)) for one in pictures * 2]
        assert all(np.array_equal(run.result(SECONDS), one) for run, one in zip(runs, alone * 2, strict=True))


def _restored(network: Any, picture: Pixels, options: Faces, device: Device) -> Any:
    return face_restoring.restored(network, picture, options, device)


def test_pixels_are_left_that_belong_to_somebody_else(restore: Callable[..., Pixels]) -> None:
    before = pixels(astronaut()).copy()
    before.flags.writeable = False
    assert not np.array_equal(restore(Sharpens(), before), before)


# Failures.


def test_numbers_that_are_not_finite_are_no_face(restore: Callable[..., Pixels]) -> None:
    with pytest.raises(Spoilt, match="face restorer's numbers are not finite"):
        restore(Paints(float("nan"), 0, 0), astronaut())


def test_one_network_is_asked_at_each_fidelity(restore: Callable[..., Pixels]) -> None:
    """So what the engine learnt of its memory holds for all of them."""
    network = Sharpens()
    for fidelity in (0.25, 0.75):
        restore(network, astronaut(), fidelity=fidelity)
    assert network.fidelities == [0.25, 0.75]


def test_a_card_without_room_is_said(restore: Callable[..., Pixels]) -> None:
    class Full(Sharpens):
        def forward(self, _: torch.Tensor, fidelity: float) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises((OutOfMemory, torch.OutOfMemoryError)):
        restore(Full(), astronaut())


# Pictures that are enlarged by themselves.


def test_faces_of_an_enlarged_picture_are_restored_and_its_alpha_stays(engine: Engine, cpu: Device) -> None:
    before = pixels(astronaut(256))
    alpha = np.tile(np.linspace(0, 255, 256).astype(np.uint8), (256, 1))
    wanted = {"pictures": [{"picture": "a"}], "scale": 2, "faces": {"restorer": "sharp"}}
    kit = UpscaleKit(cpu, before, alpha, face_restorer=Sharpens())
    made = engine.render(upscaled(Upscale(**wanted), kit)).result(SECONDS)
    plain = engine.render(upscaled(Upscale(**wanted | {"faces": None}), kit)).result(SECONDS)
    assert made.shape == (512, 512, 4)
    assert np.array_equal(made[..., 3], plain[..., 3])
    assert outside(made, plain) == 0
    assert np.abs(made[70:170, 190:260].astype(int) - plain[70:170, 190:260]).mean() > 5
    assert np.abs(found(made[..., :3])[0].points[:2] - EYES).max() < 10
