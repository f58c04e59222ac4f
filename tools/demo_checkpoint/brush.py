"""Antialiased drawing with signed distances on a grid of 128 units a side.

A shape is an array of distances to its edge in units, negative inside; laying a colour over it blends by coverage.
Distances make soft edges, soft shadows and unions (`np.minimum`) cheap. The grid may have any number of pixels a side:
a finer one has the same picture, with crisper edges.
"""

from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import zoom

SIDE = 128
Field = NDArray[np.float32]  # [height, width]
Colour = NDArray[np.float32]  # [3] or [3, height, width], 0..1
Point = tuple[float, float]


class Canvas:
    """A picture [3, height, width] and the place (`x`, `y`) of each pixel, which a style may coarsen or warp."""

    def __init__(self, cells: int = SIDE) -> None:
        self.pitch = SIDE / cells
        self.edge = min(self.pitch, 1.0)
        places = (np.arange(cells, dtype=np.float32) + 0.5) * self.pitch
        self.x, self.y = (np.ascontiguousarray(grid) for grid in np.meshgrid(places, places))
        self.picture = np.zeros((3, cells, cells), np.float32)
        self.casts_shadows = False

    def warp(self, rng: Generator, scale: float, pixels: float) -> None:
        """Let every edge wander, as a hand does."""
        self.x += pixels * magnified(noise(rng, scale), len(self.x))
        self.y += pixels * magnified(noise(rng, scale), len(self.y))

    def lay(self, distance: Field, colour: Colour, opacity: float = 1.0, softness: float = 1.0) -> None:
        """Lay `colour` over a shape; a cut-out layer darkens what lies below and to the right of it."""
        mask = coverage(distance, softness * self.edge if softness == 1.0 else softness)
        if self.casts_shadows and opacity == 1.0 and softness == 1.0:
            right, down = round(2 / self.pitch), round(3 / self.pitch)
            self.picture *= 1 - 0.38 * coverage(_moved(distance, right, down) + 1, 7.0) * (1 - mask)
        self.picture += (_planes(colour) - self.picture) * (opacity * mask)

    def glow(self, distance: Field, colour: Colour, reach: float, strength: float) -> None:
        """Add light that fades outside a shape."""
        light = np.exp(-np.maximum(distance, 0) / reach, dtype=np.float32)
        self.picture += (1 - self.picture) * _planes(colour) * (strength * light)

    def disc(self, x: float, y: float, radius: float) -> Field:
        return np.hypot(self.x - x, self.y - y) - radius

    def ellipse(self, x: float, y: float, width: float, height: float) -> Field:
        return (np.hypot((self.x - x) / width, (self.y - y) / height) - 1) * min(width, height)

    def polygon(self, *corners: Point) -> Field:
        """A convex polygon, its corners clockwise on the screen."""
        distance = np.full_like(self.x, -1e3)
        for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
            length = np.hypot(x1 - x0, y1 - y0)
            edge = (self.x - x0) * np.float32((y1 - y0) / length) - (self.y - y0) * np.float32((x1 - x0) / length)
            np.maximum(distance, edge, out=distance)
        return distance

    def stroke(self, start: Point, end: Point, radius: float, end_radius: float) -> Field:
        """A straight stroke with round ends, thicker or thinner towards its end."""
        (x0, y0), (x1, y1) = start, end
        dx, dy = np.float32(x1 - x0), np.float32(y1 - y0)
        along = np.clip(((self.x - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        width = radius + np.float32(end_radius - radius) * along
        return np.hypot(self.x - x0 - along * dx, self.y - y0 - along * dy) - width

    def below(self, height: Field | float, steepness: float = 0.0) -> Field:
        """All that lies below a line of the given height (in y, downwards)."""
        return (height - self.y) / np.float32(np.hypot(1, steepness))


def coverage(distance: Field, softness: float = 1.0) -> Field:
    return np.clip(0.5 - distance / np.float32(softness), 0, 1)


def mixed(first: Colour, second: Colour, share: Field | float) -> Colour:
    """`first` where `share` is 0, `second` where it is 1."""
    if isinstance(share, np.ndarray):
        return _planes(first) + (_planes(second) - _planes(first)) * share
    return first + (second - first) * np.float32(share)


def colour(red: float, green: float, blue: float) -> Colour:
    return np.array((red, green, blue), np.float32)


def noise(rng: Generator, scale: float, stretch: float = 1.0) -> Field:
    """Smooth noise [128, 128] of unit variance; `scale` is the size of its blots in pixels, `stretch` widens them."""
    sheet = _sheet(scale, stretch)
    top, left = rng.integers(0, len(sheet), 2)
    return np.roll(sheet, (top, left), (0, 1))[:SIDE, :SIDE]


def magnified(field: Field, side: int) -> Field:
    """A smooth square field on a finer grid of the same extent, by cubic splines."""
    if side == len(field):
        return field
    across = _magnifier(len(field), side)
    return across @ field @ across.T


@lru_cache(maxsize=4)
def _magnifier(length: int, side: int) -> Field:
    """The matrix [side, length] that brings a line of values to a finer grid."""
    unit = np.eye(length, dtype=np.float32)
    return zoom(unit, (side / length, 1), order=3, mode="nearest", grid_mode=True)


@lru_cache(maxsize=16)
def _sheet(scale: float, stretch: float) -> Field:
    """White noise blurred by a Gaussian, wrapped at its edges."""
    side = 2 * SIDE
    white = np.fft.rfft2(np.random.default_rng(5).standard_normal((side, side)))
    down, across = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    blurred = np.fft.irfft2(white * np.exp(-((down**2 + (across * stretch) ** 2) * (2 * scale) ** 2)), (side, side))
    return (blurred / blurred.std()).astype(np.float32)


def _planes(value: Colour) -> Colour:
    return value[:, None, None] if value.ndim == 1 else value


def _moved(field: Field, right: int, down: int) -> Field:
    return np.pad(field, ((down, 0), (right, 0)), mode="edge")[: field.shape[0], : field.shape[1]]
