"""Looks that the demo checkpoint does not know, given to pictures of its scenes by image processing."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from tools.demo_checkpoint.brush import SIDE, Field, colour, noise

PAPER = colour(0.985, 0.97, 0.935)
LUMA = colour(0.299, 0.587, 0.114)  # ITU-R BT.601
DENSITY = 0.6  # of the pigment, of a full colour's

Picture = NDArray[np.uint8]  # [128, 128, 3]


def watercolour(picture: Picture, rng: Generator) -> Picture:
    """Thin pigment on paper: it bleeds, gathers at edges, settles in the grain, and leaves a ragged white margin."""
    bled = gaussian_filter(_bled(picture.astype(np.float32) / 255, rng), (0.7, 0.7, 0))
    grey = bled @ LUMA
    pools = np.abs(grey - gaussian_filter(grey, 2.0))
    washes = 1 + 0.16 * noise(rng, 8.0) + 0.07 * noise(rng, 1.5)
    pigment = (1 - bled) * (DENSITY * washes)[..., None] + 0.9 * pools[..., None]
    return _bytes(PAPER * (1 - np.clip(pigment, 0, 1) * _margin(rng)[..., None]))


def noir(picture: Picture) -> Picture:
    """Black and white, with more contrast."""
    grey = picture.astype(np.float32) / 255 @ LUMA
    steep = grey + 0.5 * (grey * grey * (3 - 2 * grey) - grey)
    return _bytes(np.repeat(steep[..., None], 3, 2))


def _bled(values: NDArray[np.float32], rng: Generator) -> NDArray[np.float32]:
    """Every edge wanders by about a pixel."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    places = (rows + 1.0 * noise(rng, 5.0), columns + 1.0 * noise(rng, 5.0))
    return np.stack([map_coordinates(plane, places, order=1, mode="nearest") for plane in values.transpose(2, 0, 1)], 2)


def _margin(rng: Generator) -> Field:
    """1 under pigment, 0 on the bare paper around, and a little more than 1 along the edge between them."""
    places = np.arange(SIDE, dtype=np.float32) + 0.5
    inward = np.minimum(places, SIDE - places)
    inside = np.minimum(inward[:, None], inward[None, :]) + 1.4 * noise(rng, 4.0) - 7
    return np.clip(inside / 2.5, 0, 1) * (1 + 0.35 * np.exp(-((inside - 3) ** 2) / 3))


def _bytes(values: NDArray[np.float32]) -> Picture:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
