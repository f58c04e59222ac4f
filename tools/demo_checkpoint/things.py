"""The things that stand on the ground: pyramids, trees, a house, a lighthouse, a sailboat."""

import numpy as np

from tools.demo_checkpoint.brush import Canvas, Field, Point, colour
from tools.demo_checkpoint.light import Light
from tools.demo_checkpoint.view import Spot, View

PAINTS = {
    "red": colour(0.86, 0.13, 0.12),
    "blue": colour(0.13, 0.32, 0.88),
    "green": colour(0.10, 0.62, 0.24),
    "yellow": colour(0.98, 0.82, 0.12),
    "white": colour(0.97, 0.97, 0.95),
    "purple": colour(0.56, 0.18, 0.72),
}
SNOW, WOOD, DARK = colour(0.96, 0.97, 1.0), colour(0.42, 0.26, 0.15), colour(0.2, 0.15, 0.2)
SANDSTONE, PINE, PALM = colour(0.90, 0.70, 0.40), colour(0.10, 0.36, 0.22), colour(0.16, 0.50, 0.18)
LAMP, PANE, TILE = colour(1.0, 0.85, 0.42), colour(0.75, 0.9, 1.0), colour(0.36, 0.22, 0.2)
ROCK = colour(0.42, 0.40, 0.42)
ON_TOP = 0.999  # hides what is below like 1, but belongs to it: casts no shadow of its own


def pyramids(view: View, spot: Spot) -> None:
    height = float(view.rng.uniform(40, 46)) * spot.size
    trio = ((-27.0, -4.0, 0.6), (27.0, -3.0, 0.66), (0.0, 3.0, 0.9))
    for dx, dy, scale in ((0.0, 0.0, 1.0),) if view.scene.pyramids == 1 else trio:
        _pyramid(view.canvas, view.light, spot.x + dx * spot.size, spot.foot + dy, height * scale)


def _pyramid(canvas: Canvas, light: Light, x: float, foot: float, height: float) -> None:
    """A sunlit face and a shaded one."""
    half, ridge = 0.86 * height, 0.18 * height
    _shadow(canvas, x + 2, foot, half)
    whole = canvas.polygon((x, foot - height), (x + half, foot), (x - half, foot))
    canvas.lay(whole, light.far(light.tone(SANDSTONE * 1.08), 0.06))
    dark = canvas.polygon((x, foot - height), (x + half, foot), (x + ridge, foot))
    canvas.lay(dark, light.far(light.tone(SANDSTONE * 0.60), 0.06), opacity=ON_TOP)


def trees(view: View, spot: Spot) -> None:
    trio = ((-17.0, -3.0, 0.85), (17.0, -1.0, 0.92), (0.0, 4.0, 1.05))
    for dx, dy, scale in ((0.0, 2.0, 1.1),) if view.scene.trees == 1 else trio:
        height = float(view.rng.uniform(48, 54)) * spot.size * scale
        place = Spot(spot.x + dx * spot.size, spot.foot + dy, height)
        lean = float(view.rng.uniform(-1, 1))
        if view.scene.tree == "pine":
            _pine(view, place, lean)
        else:
            _palm(view, place, lean)


def _pine(view: View, spot: Spot, lean: float) -> None:
    """Three tiers on a trunk, with snow on their tips where it lies."""
    canvas, light, (x, foot, height) = view.canvas, view.light, spot
    _shadow(canvas, x, foot, 0.24 * height)
    canvas.lay(canvas.stroke((x, foot), (x, foot - 0.3 * height), 0.045 * height, 0.04 * height), light.tone(WOOD))
    tiers = [(0.14, 0.28, 0.52), (0.36, 0.22, 0.74), (0.58, 0.16, 1.0)]
    whole = np.full_like(canvas.x, 1e3)
    for low, half, top in tiers:
        base, wide = foot - low * height, half * height
        whole = np.minimum(whole, canvas.polygon((x, foot - top * height), (x + wide, base), (x - wide, base)))
    canvas.lay(whole, light.shaded(PINE * (1.15 + 0.1 * lean), canvas.x - x - 0.02 * height))
    for low, half, top in tiers if view.scene.ground == "snow" else ():
        tip, wide, middle = foot - top * height, half * height * 0.5, foot - (low + top) / 2 * height
        cap = canvas.polygon((x, tip), (x + wide, middle), (x - wide, middle))
        canvas.lay(cap, light.shaded(SNOW, canvas.x - x - 1), opacity=ON_TOP)


def _palm(view: View, spot: Spot, lean: float) -> None:
    """A bent trunk and six boughs, each rising and falling."""
    canvas, (x, foot, height) = view.canvas, spot
    bend = 0.16 * height * (1 if lean > 0 else -1)
    top, middle = (x + bend, foot - 0.78 * height), (x + 0.25 * bend, foot - 0.4 * height)
    _shadow(canvas, x, foot, 0.2 * height)
    lower = canvas.stroke((x, foot), middle, 0.055 * height, 0.045 * height)
    upper = canvas.stroke(middle, top, 0.045 * height, 0.035 * height)
    canvas.lay(np.minimum(lower, upper), view.light.tone(WOOD * 1.25))
    crown = np.full_like(canvas.x, 1e3)
    for reach, lift, fall in ((0.40, 0.06, -0.22), (0.36, 0.2, -0.02), (0.16, 0.2, 0.16)):
        for side in (-1, 1):
            elbow = (top[0] + side * 0.55 * reach * height, top[1] - lift * height)
            tip = (top[0] + side * reach * height, top[1] - fall * height)
            rise = canvas.stroke(top, elbow, 0.035 * height, 0.06 * height)
            drop = canvas.stroke(elbow, tip, 0.06 * height, 0.012 * height)
            crown = np.minimum(crown, np.minimum(rise, drop))
    canvas.lay(crown, view.light.shaded(PALM, canvas.y - top[1] - 0.05 * height))


def house(view: View, spot: Spot) -> None:
    """A gable, a side with two windows, a roof; lamps are lit in the dark."""
    canvas, light, (x, foot, size) = view.canvas, view.light, spot

    def shape(*corners: Point) -> Field:
        return canvas.polygon(*((x + dx * size, foot + dy * size) for dx, dy in corners))

    paint = PAINTS[view.scene.colour]
    _shadow(canvas, x + 2, foot, 27 * size)
    side = shape((-3, -20), (24, -20), (24, 0), (-3, 0))
    front = shape((-13, -35), (-2, -20), (-2, 0), (-24, 0), (-24, -20))
    canvas.lay(np.minimum(side, front), light.vivid(paint * 0.74))
    canvas.lay(front, light.vivid(paint), opacity=ON_TOP)
    roof = shape((-13, -38), (16, -38), (27, -19), (-2, -19))
    canvas.lay(roof, light.vivid(SNOW if view.scene.ground == "snow" else TILE))
    canvas.lay(shape((-17, -12), (-9, -12), (-9, 0), (-17, 0)), light.tone(DARK), opacity=ON_TOP)
    for dx in (3, 14):
        window = shape((dx, -15), (dx + 7, -15), (dx + 7, -7), (dx, -7))
        canvas.lay(window, LAMP if light.is_dark else PANE, opacity=ON_TOP)


def lighthouse(view: View, spot: Spot) -> None:
    """A banded tower on a rock, a gallery, a lit lantern and its roof; in the dark two beams reach far."""
    canvas, light, (x, foot, size) = view.canvas, view.light, spot

    def shape(*corners: Point) -> Field:
        return canvas.polygon(*((x + dx * size, foot + dy * size) for dx, dy in corners))

    def band(low: float, high: float) -> Field:
        """A slice of the tower, which narrows from 9 units at its foot to 5 under the gallery."""
        narrow, wide = 9 - 4 * high / 48, 9 - 4 * low / 48
        return shape((-narrow, -high), (narrow, -high), (wide, -low), (-wide, -low))

    for tip in (-70, 70) if light.is_dark else ():
        near, far = (0, -53), ((tip, -66), (tip, -44))
        beam = shape(near, *far) if tip > 0 else shape(*far[::-1], near)
        canvas.lay(beam, LAMP, opacity=0.4, softness=3.0)
    canvas.lay(canvas.ellipse(x, foot + 1, 19 * size, 6.5 * size), light.shaded(ROCK, canvas.x - x))
    canvas.lay(band(0, 48), light.vivid(PAINTS["white"]))
    for low in (6, 24, 42):
        canvas.lay(band(low, min(low + 10, 48)), light.vivid(PAINTS[view.scene.colour]), opacity=ON_TOP)
    shade = shape((2, -48), (5, -48), (9, 0), (4, 0))
    canvas.lay(shade, light.tone(DARK), opacity=0.3)
    canvas.lay(shape((-8, -50), (8, -50), (8, -47), (-8, -47)), light.tone(DARK))
    canvas.lay(shape((-4.5, -57), (4.5, -57), (4.5, -50), (-4.5, -50)), LAMP)
    canvas.lay(shape((0, -63), (6, -57), (-6, -57)), light.vivid(PAINTS["red"]))


def sailboat(view: View, spot: Spot) -> None:
    """A wooden hull with a white rim, two sails in the boat's colour, and their colour in the water."""
    canvas, light, (x, water, size) = view.canvas, view.light, spot
    size *= float(view.rng.uniform(1.0, 1.15))
    way = 1 if view.rng.random() < 0.5 else -1

    def shape(*corners: Point) -> Field:
        points = [(x + way * dx * size, water + dy * size) for dx, dy in corners]
        return canvas.polygon(*(points if way == 1 else reversed(points)))

    paint = PAINTS[view.scene.colour]
    mirrored = canvas.ellipse(x, water + 6 * size, 22 * size, 6.0)
    canvas.lay(mirrored, light.vivid(paint * 0.6), opacity=0.35, softness=4.0)
    canvas.lay(shape((-20, -7), (22, -7), (15, 3), (-14, 3)), light.vivid(WOOD * 1.2))
    canvas.lay(shape((-20, -7), (22, -7), (21, -4.5), (-18.5, -4.5)), light.vivid(SNOW), opacity=ON_TOP)
    canvas.lay(canvas.stroke((x, water - 6 * size), (x, water - 50 * size), 1.3, 1.1), light.tone(WOOD))
    canvas.lay(shape((2, -49), (23, -11), (2, -11)), light.vivid(paint))
    canvas.lay(shape((-2, -44), (-2, -11), (-17, -11)), light.vivid(paint * 0.84))


def _shadow(canvas: Canvas, x: float, y: float, width: float) -> None:
    canvas.lay(canvas.ellipse(x + 2, y, width, 3.2), colour(0.05, 0.05, 0.12), opacity=0.34, softness=3.5)
