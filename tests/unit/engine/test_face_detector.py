"""Where faces are found: at several sizes and angles, several of them, and none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.support.faces import EYES, MIDDLE, astronaut, pixels
from worker.engine.upscaling import face_detector
from worker.engine.upscaling.face_detector import Face, found

ROOT = Path(__file__).parents[3]


def turned(points: np.ndarray, degrees: float, side: int = 512) -> np.ndarray:
    """Where places of a picture lie after Pillow has turned it around its middle."""
    angle, middle = np.radians(degrees), side / 2
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (points - middle) @ turn.T + middle


def only(picture: Image.Image) -> Face:
    (face,) = found(pixels(picture))
    return face


@pytest.mark.parametrize("side", [64, 128, 512, 1400])
def test_a_face_is_found_where_it_is(side: int) -> None:
    face = only(astronaut(side))
    assert np.abs(face.points[:2] * 512 / side - EYES).max() < 10
    assert face.score > 0.8


@pytest.mark.parametrize("degrees", [-30, -15, 15, 30])
def test_a_turned_face_is_found(degrees: float) -> None:
    face = only(astronaut().rotate(degrees, resample=Image.Resampling.BICUBIC))
    assert np.abs(face.points[:2] - turned(EYES, degrees)).max() < 10


def test_a_face_that_fills_a_large_picture_is_one_face() -> None:
    face = only(astronaut().crop((175, 50, 275, 190)).resize((1000, 1400), Image.Resampling.LANCZOS))
    assert np.abs(face.points[:2] / 10 + (175, 50) - EYES).max() < 5


def test_a_small_face_in_a_large_picture_is_found() -> None:
    picture = Image.new("RGB", (2048, 2048), "grey")
    picture.paste(astronaut(300), (1500, 1600))
    assert np.abs(only(picture).points.mean(axis=0) - np.add((1500, 1600), np.multiply(MIDDLE, 300 / 512))).max() < 10


def test_the_larger_one_of_two_faces_comes_first() -> None:
    picture = Image.new("RGB", (900, 512), "grey")
    picture.paste(astronaut(300), (0, 0))
    picture.paste(astronaut(), (388, 0))
    first, second = found(pixels(picture))
    assert first.eyes > second.eyes
    assert first.points[0, 0] > 388 > second.points[0, 0]


def test_a_face_without_colours_is_found() -> None:
    assert np.abs(only(astronaut().convert("L").convert("RGB")).points[:2] - EYES).max() < 10


def test_only_so_many_faces_are_returned() -> None:
    picture, small = Image.new("RGB", (1024, 1024)), astronaut(170)
    for at in range(36):
        picture.paste(small, (at % 6 * 170, at // 6 * 170))
    assert len(found(pixels(picture))) == face_detector.MOST_FACES


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (6000, 2), (33, 31), (24, 24)])
def test_a_picture_of_any_size_is_searched(size: tuple[int, int]) -> None:
    assert found(pixels(astronaut().resize(size))) == []


def test_pictures_without_faces_have_none() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    with Image.open(ROOT / "models/demo/adapters.webp") as sheet:  # scenes of the demo checkpoint
        scenes = np.asarray(sheet.convert("RGB"))
    assert [found(one) for one in (noise, scenes, np.zeros((64, 64, 3), np.uint8))] == [[], [], []]


def test_time_is_bounded_if_every_place_looks_like_a_face(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = 160, 160
    outputs = [np.full((1, *cells), 0.9), np.full((2, *cells), 2.0), np.zeros((2, *cells)), np.full((10, *cells), 0.5)]
    outputs[3][:4] = np.array([0.2, 0.2, 0.2, 0.8])[:, None, None]
    monkeypatch.setattr(face_detector, "_outputs", lambda _: outputs)
    assert len(found(np.zeros((640, 640, 3), np.uint8))) <= face_detector.MOST_FACES


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_numbers_that_mean_no_place_are_no_face(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = 64, 64
    outputs = [np.zeros((1, *cells)), np.full((2, *cells), value), np.zeros((2, *cells)), np.full((10, *cells), value)]
    outputs[0][0, 5, 5] = 1
    monkeypatch.setattr(face_detector, "_outputs", lambda _: outputs)
    with np.errstate(all="ignore"):
        assert found(np.zeros((256, 256, 3), np.uint8)) == []


def test_faces_lie_at_the_same_places_whatever_the_threads() -> None:
    alone = only(astronaut())
    try:
        cv2.setNumThreads(2)
        assert np.array_equal(only(astronaut()).points, alone.points)
    finally:
        cv2.setNumThreads(1)


@pytest.mark.nightly
def test_opencv_is_imported_with_the_first_face() -> None:
    code = "import sys, worker.engine.pipelines.render, worker.engine.pipelines.upscale; print('cv2' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert made.stdout == "False\n"
