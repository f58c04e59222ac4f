"""How long and how large the passes of a render are: plain numbers, for the engine, for cost and for metadata."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from shared.params.groups import Hires
from shared.params.render import RenderParams

CELL: Final = 8  # pixels of a latent cell's side
_NEARLY_ALL: Final = 0.999  # a denoising strength of 1 still starts from the picture, under all of the noise
_HARDLY_ANY: Final = 0.001  # a schedule that is a thousand times as long ends as finely as any


class Steps(NamedTuple):
    """A schedule of `total` steps, of which only the last `run` are taken."""

    total: int
    run: int


class Target(NamedTuple):
    """A size to enlarge to, in pixels, and what is then cut off in latent cells, half of it on either side."""

    width: int
    height: int
    cut_x: int = 0
    cut_y: int = 0

    @property
    def final(self) -> tuple[int, int]:
        """Width and height of the picture that comes out."""
        return (self.width // CELL - self.cut_x) * CELL, (self.height // CELL - self.cut_y) * CELL


def in_proportion(source: tuple[int, int], area: int, least: int, most: int) -> tuple[int, int]:
    """Return the size in whole latent cells that has the proportions of `source` at about `area` pixels.

    Where a side would pass its bounds both change with it: the proportions are given up last.
    """
    factor = math.sqrt(area / (source[0] * source[1]))
    factor *= max(1.0, least / (min(source) * factor))
    factor *= min(1.0, most / (max(source) * factor))
    width, height = (min(max(round(side * factor / CELL) * CELL, least), most) for side in source)
    return width, height


def img2img_steps(steps: int, denoising: float, *, exact: bool) -> Steps:
    """Return the steps of a pass that starts from a picture.

    As a rule the strength shortens the way, and at least one step is taken. `exact`: all steps asked for are taken, at
    the end of a schedule so much longer; at strength 0 there are none, and the picture stays.
    """
    strength = min(denoising, _NEARLY_ALL)
    if not exact:
        return Steps(steps, int(strength * steps) + 1)
    return Steps(int(steps / max(strength, _HARDLY_ANY)), steps) if strength > 0 else Steps(0, 0)


def hires_steps(params: RenderParams, hires: Hires) -> Steps:
    """Return the steps of the second pass, which takes all that were asked for."""
    return img2img_steps(hires.steps or params.steps, hires.denoising, exact=True)


def hires_size(width: int, height: int, hires: Hires) -> Target:
    """Return what a first pass of `width` x `height` is enlarged to.

    One side given: the other keeps the proportions. Both given: they are covered, and what stands over is cut off.
    """
    if not (hires.width or hires.height):
        return Target(int(width * hires.scale), int(height * hires.scale))
    by_width = Target(hires.width, height * hires.width // width)
    by_height = Target(width * hires.height // height, hires.height)
    if not (hires.width and hires.height):
        return by_width if hires.width else by_height
    covering = by_width if by_width.height >= hires.height else by_height
    over_x, over_y = covering.width - hires.width, covering.height - hires.height
    return covering._replace(cut_x=over_x // CELL, cut_y=over_y // CELL)
