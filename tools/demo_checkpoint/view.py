"""What everybody who draws a scene needs to know."""

from dataclasses import dataclass
from typing import NamedTuple

from numpy.random import Generator

from tools.demo_checkpoint.brush import Canvas
from tools.demo_checkpoint.light import Light
from tools.demo_checkpoint.scenes import Scene


@dataclass(frozen=True)
class View:
    """A scene on its canvas, in its light; `horizon` in units from the top."""

    canvas: Canvas
    scene: Scene
    light: Light
    horizon: float
    rng: Generator


class Spot(NamedTuple):
    """Where a thing stands, and how large it is there."""

    x: float
    foot: float
    size: float
