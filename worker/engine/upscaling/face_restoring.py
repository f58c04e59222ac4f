"""Faces restored in a picture: each is cut out upright, goes through a network, and is laid back with a soft edge."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from itertools import product
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import Spoilt
from shared.media.arrays import Pixels
from shared.params.faces import Faces
from worker.engine.devices import Device
from worker.engine.requests import Apply, Asks, Read, Work
from worker.engine.transfers import fetched, pinned, to_device
from worker.engine.upscaling import face_detector
from worker.engine.upscaling.architectures import PixelNetwork
from worker.engine.upscaling.face_detector import Points

Values = NDArray[Any]  # [h, w, 3]
Map = NDArray[np.float64]  # [2, 3]: places of a picture -> places of a face that was cut out

SIDE: Final = 512  # of the square that networks restore
_PLACES: Final = np.array([[192.98, 239.95], [318.90, 240.19], [256.63, 314.02], [201.26, 371.41], [313.09, 371.15]])
"""Where the eyes, the nose and the corners of the mouth lie in that square: in FFHQ, which the networks learnt from."""
_MIDDLE: Final = (256, 270)
_AXES: Final = (200, 235)  # of the ellipse that is restored
_FEATHER: Final = 0.3  # share of the way from its edge to its middle, over which it fades in
_HALF: Final = np.array([[0, 0, 0.5]])  # a pixel, from its middle to its edge
_BLOCK: Final = 512  # pixels of a side of what is laid back at once: as fractions it takes a multiple of its memory
_FAILED: Final = (
    "the face restorer's numbers are not finite: it overflows in this precision (FARM_PRECISION: float32 and bfloat16 "
    "hold more than float16), or its weights are damaged"
)


def restored(network: PixelNetwork, pixels: Pixels, options: Faces, device: Device) -> Asks[Pixels]:
    """Return `pixels` [h, w, 3] with its faces restored; itself if there are none."""
    places: list[Map] = yield Work(partial(_places, pixels))
    if not places:
        return pixels
    result = pixels.copy()
    for place in places:
        cut: Tensor = yield Work(partial(_prepared, pixels, place, device))
        answer: Tensor = yield Apply(network, to_device(cut, device), options={"fidelity": options.fidelity})
        yield Read(partial(_lay_back, result, cut, answer, place, options.strength))
    return result


def _places(pixels: Pixels) -> list[Map]:
    """Return where the faces of a picture are. A turned face is found inexactly, so each is looked at again upright."""
    return [_upright(pixels, alignment(face.points)) for face in face_detector.found(pixels)]


def _upright(pixels: Pixels, place: Map) -> Map:
    points = face_detector.middle_one(_cut_out(pixels, place))
    if points is None:
        return place
    there = np.linalg.solve(place[:, :2], points.T - place[:, 2:]).T.astype(np.float64)
    height, width = pixels.shape[:2]
    return alignment(there) if face_detector.is_large_inside(there, width, height) else place


def alignment(points: Points) -> Map:
    """Return the shift, turn and scale that bring `points` nearest to their places, by least squares (Umeyama, 1991).

    In a plane these are one complex factor and one sum.
    """
    given, wanted = (one[:, 0] + 1j * one[:, 1] for one in (points, _PLACES))
    centred = given - given.mean()
    factor = np.vdot(centred, wanted - wanted.mean()) / np.vdot(centred, centred)
    shift = wanted.mean() - factor * given.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def _prepared(pixels: Pixels, place: Map, device: Device) -> Tensor:
    """Return the square of a face as values in 0..1 [3, 512, 512]."""
    square = _cut_out(pixels, place).transpose(2, 0, 1)
    return pinned(torch.from_numpy(square.astype(np.float32) / 255), device)


def _cut_out(pixels: Pixels, place: Map) -> Pixels:
    """Return the square [512, 512, 3] of a face; beyond the picture's edges the outermost pixels are repeated."""
    import cv2  # noqa: PLC0415 - as in face_detector

    left, top, right, bottom = _extent(place, pixels)
    around = np.ascontiguousarray(pixels[top:bottom, left:right])
    place = _shifted(place, left, top)
    around, factors = _averaged(around, 1 / _scale(place))
    place = np.column_stack([place[:, :2] * factors, place[:, 2] + place[:, :2] @ ((factors - 1) / 2)])
    square = cv2.warpAffine(around, place, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(square, np.uint8)


def _lay_back(result: Pixels, cut: Tensor, answer: Tensor, place: Map, strength: float) -> None:
    """Lay a face over `result` as far as the mask and `strength` say; other pixels stay as they are."""
    import cv2  # noqa: PLC0415 - as in face_detector

    face = fetched(answer)
    if not face.isfinite().all():
        raise Spoilt(_FAILED)
    levels, factors = _averaged((_with_colours(face, cut) * 255).permute(1, 2, 0).numpy(), _scale(place))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP  # the map says where each pixel of the picture lies in the face
    for left, top, right, bottom in _blocks(_extent(place, result)):
        here, size = _shifted(place, left, top), (right - left, bottom - top)
        share = cv2.warpAffine(_mask(), here, size, flags=flags)[..., None] * np.float32(strength)
        smaller = (here + _HALF) / factors[:, None] - _HALF
        over = cv2.warpAffine(levels, smaller, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        block = result[top:bottom, left:right]
        block[:] = np.where(share > 0, (block + (over - block) * share).round().clip(0, 255), block)


def _averaged(values: Values, times: float) -> tuple[Values, NDArray[np.float64]]:
    """Return a picture that is to become so many times smaller, averaged to at most four times the size that it will
    have, and the factors of its width and height: a pixel is then made of its neighbours in the picture.
    """
    import cv2  # noqa: PLC0415 - as in face_detector

    height, width = values.shape[:2]
    by = max(1, int(times / 2))
    size = max(1, width // by), max(1, height // by)
    factors = np.array([width / size[0], height / size[1]])
    return (values if by == 1 else cv2.resize(values, size, interpolation=cv2.INTER_AREA)), factors


def _scale(place: Map) -> float:
    return float(np.hypot(*place[:, 0]))


def _with_colours(face: Tensor, before: Tensor) -> Tensor:
    """Return a restored face in the mean colours that it had [3, 512, 512]."""
    weights = torch.from_numpy(_mask())
    return face + ((before - face) * weights).sum((1, 2), keepdim=True) / weights.sum()


@cache
def _mask() -> NDArray[np.float32]:
    """Return how much of each place of the square is restored: an ellipse around the face that fades out."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    distances = np.hypot((columns - _MIDDLE[0]) / _AXES[0], (rows - _MIDDLE[1]) / _AXES[1])
    inward = ((1 - distances) / _FEATHER).clip(0, 1)
    return np.asarray(inward * inward * (3 - 2 * inward), np.float32)


def _extent(place: Map, pixels: Pixels) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the part of a picture that the square of a face covers."""
    height, width = pixels.shape[:2]
    turn = place[:, :2]
    corners = np.linalg.solve(turn, np.array([[0, SIDE, SIDE, 0], [0, 0, SIDE, SIDE]]) - place[:, 2:])
    (left, top), (right, bottom) = np.floor(corners.min(axis=1)) - 1, np.ceil(corners.max(axis=1)) + 2
    left, right = np.clip([left, right], 0, width)
    top, bottom = np.clip([top, bottom], 0, height)
    return int(left), int(top), int(right), int(bottom)


def _blocks(extent: tuple[int, int, int, int]) -> Iterator[tuple[int, int, int, int]]:
    left, top, right, bottom = extent
    for y, x in product(range(top, bottom, _BLOCK), range(left, right, _BLOCK)):
        yield x, y, min(x + _BLOCK, right), min(y + _BLOCK, bottom)


def _shifted(place: Map, left: int, top: int) -> Map:
    """Return the same map for places that are counted from `left` and `top`."""
    return np.column_stack([place[:, :2], place[:, 2] + place[:, :2] @ (left, top)])
