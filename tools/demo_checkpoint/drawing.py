"""Draws a scene: sky first, then everything from far to near, in the light of the hour and the manner of the style."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tools.demo_checkpoint import things
from tools.demo_checkpoint.brush import SIDE, Canvas, Colour, colour, coverage, magnified, mixed, noise
from tools.demo_checkpoint.light import Light
from tools.demo_checkpoint.scenes import Scene
from tools.demo_checkpoint.view import Spot, View

STONE = colour(0.38, 0.42, 0.58)
WHITE = colour(1, 1, 1)
SWELLS = {"desert": 3.2, "meadow": 2.4, "snow": 2.2}  # how high the ground rolls


def render(scene: Scene, rng: Generator, side: int = SIDE) -> NDArray[np.uint8]:
    """The picture of a scene, uint8 [side, side, 3]; `rng` places and varies what the scene leaves open.

    The same `rng` gives the same picture at every size; `side` is a multiple of 128.
    """
    canvas = _canvas(scene.style, rng, side)
    light = Light(scene.sky, scene.style, rng)
    view = View(canvas, scene, light, float(rng.uniform(72, 82)), rng)
    columns = _columns(scene, rng)
    free = _free_column(list(columns.values()), rng)
    light.sky(canvas, view.horizon)
    _draw_lights(view, free)
    if scene.clouds:
        _clouds(view, free)
    if scene.mountains:
        _mountains(view)
    _ground(view, free)
    _draw_things(view, columns)
    return _finished(canvas, scene.style, rng, side)


def _canvas(style: str, rng: Generator, side: int) -> Canvas:
    canvas = Canvas(32 if style == "pixel art" else side)
    canvas.casts_shadows = style == "paper cutout"
    if style == "painting":
        canvas.warp(rng, scale=9.0, pixels=0.8)
    return canvas


def _columns(scene: Scene, rng: Generator) -> dict[str, float]:
    """Where along the picture each thing on the ground stands, far enough from the others."""
    there = {"pyramids": scene.pyramids, "trees": scene.trees, "building": scene.building}
    names = [name for name, here in there.items() if here]
    centres = {0: [], 1: [float(rng.uniform(42, 86))], 2: [34.0, 94.0], 3: [22.0, 64.0, 106.0]}[len(names)]
    places = rng.permutation(np.array(centres) + rng.uniform(-4, 4, len(centres)))
    return dict(zip(names, map(float, places), strict=True))


def _free_column(taken: list[float], rng: Generator) -> float:
    """A place for sun or moon where nothing stands in front."""
    candidates = rng.uniform(22, 106, 12)
    gaps = [min((abs(place - x) for x in taken), default=99.0) for place in candidates]
    return float(candidates[int(np.argmax(np.minimum(gaps, 40)))])


def _draw_lights(view: View, x: float) -> None:
    scene, rng = view.scene, view.rng
    is_low = scene.sky in ("sunset", "dawn") and not scene.mountains and not scene.trees
    y = view.horizon - float(rng.uniform(10, 22)) if is_low else float(rng.uniform(20, 30))
    if scene.sun:
        view.light.sun(view.canvas, x, y, float(rng.uniform(12, 15)))
    if scene.moon:
        view.light.moon(view.canvas, x, y, float(rng.uniform(11, 14)), crescent=rng.random() < 0.5)


def _clouds(view: View, free: float) -> None:
    """Two or three heaps of puffs with a flat foot, away from sun and moon."""
    canvas, light, rng = view.canvas, view.light, view.rng
    for x in (place for place in (18.0, 64.0, 110.0) if abs(place - free) > 24):
        cx, foot, width = x + float(rng.uniform(-5, 5)), float(rng.uniform(26, 42)), float(rng.uniform(13, 18))
        heap = canvas.ellipse(cx, foot, 1.35 * width, 0.36 * width)
        for dx, up, size in ((-0.62, 0.3, 0.42), (0.0, 0.55, 0.58), (0.62, 0.32, 0.44)):
            heap = np.minimum(heap, canvas.disc(cx + dx * width, foot - up * width, size * width))
        heap = np.maximum(heap, canvas.y - foot - 0.22 * width)
        shade = light.stepped(np.clip((canvas.y - foot + 0.8 * width) / (1.1 * width), 0, 1))
        canvas.lay(heap, light.tone(mixed(light.cloud, light.cloud_shade, shade)), softness=light.fuzz)


def _mountains(view: View) -> None:
    for number, x in enumerate(view.rng.permutation([20.0, 60.0, 102.0])):
        peak = float(x + view.rng.uniform(-6, 6))
        height = float(view.rng.uniform(30, 40)) if number else float(view.rng.uniform(38, 46))
        _mountain(view, peak, height, slope=float(view.rng.uniform(1.0, 1.25)))


def _mountain(view: View, x: float, height: float, slope: float) -> None:
    """A sunlit face, a shaded one, and snow with a ragged edge."""
    canvas, light, horizon = view.canvas, view.light, view.horizon
    across = canvas.x - x
    face = canvas.below(horizon - height + slope * np.abs(across), slope)
    face = np.maximum(face, canvas.y - horizon - 3)
    ragged = 2.4 * np.abs((across / 6.0 + 0.3) % 2 - 1)
    canvas.lay(face, light.far(light.shaded(STONE, across + ragged - 1), 0.34))
    cap = np.maximum(face, canvas.y - (horizon - 0.6 * height) - 2 * ragged)
    canvas.lay(cap, light.far(light.shaded(things.SNOW, across + ragged - 1), 0.12), opacity=things.ON_TOP)


def _ground(view: View, free: float) -> None:
    canvas, scene, light, rng = view.canvas, view.scene, view.light, view.rng
    if scene.ground == "sea":
        light.sea(canvas, view.horizon, free if scene.sun or scene.moon else None)
        return
    far, near = light.soil(scene.ground)
    swell = SWELLS[scene.ground]
    for number, (drop, amplitude) in enumerate(((0, 0.5), (17, swell), (35, 1.2 * swell))):
        phase, wave = float(rng.uniform(0, 6.28)), float(rng.uniform(20, 28))
        crest = view.horizon + drop + amplitude * np.sin(canvas.x / wave + phase)
        depth = light.stepped(np.clip((canvas.y - crest) / 24, 0, 1))
        base = mixed(far, near, number / 2)
        slope = mixed(mixed(base, WHITE, 0.16), mixed(base, near * 0.86, 0.5), depth)
        canvas.lay(canvas.below(crest), light.far(light.tone(slope), 0.10))


def _draw_things(view: View, columns: dict[str, float]) -> None:
    scene, small = view.scene, 0.82 if len(columns) == 3 else 1.0
    if scene.pyramids:
        things.pyramids(view, Spot(columns["pyramids"], view.horizon + 16, small))
    if scene.trees:
        things.trees(view, Spot(columns["trees"], view.horizon + 27, small))
    if scene.building == "house":
        things.house(view, Spot(columns["building"], view.horizon + 30, small * 1.1))
    if scene.building == "lighthouse":
        things.lighthouse(view, Spot(columns["building"], view.horizon + 26, small))
    if scene.building == "sailboat":
        things.sailboat(view, Spot(columns["building"], view.horizon + 22, 1.0))


def _finished(canvas: Canvas, style: str, rng: Generator, side: int) -> NDArray[np.uint8]:
    """The picture with what a style does last: brush strokes, a lens, coarse pixels or paper."""
    picture: Colour = canvas.picture
    if style == "painting":
        strokes = 0.042 * noise(rng, 3.0, stretch=3.5) + 0.025 * noise(rng, 5.0)
        picture = _saturated(picture * (1 + magnified(strokes, side)), 1.18)
    elif style == "photo":
        vignette = coverage(np.hypot(canvas.x - 64, canvas.y - 60) - 74, 70.0)
        picture = picture * (0.72 + 0.28 * vignette)
        picture = picture + 0.25 * (picture * picture * (3 - 2 * picture) - picture)
    elif style == "pixel art":
        picture = np.round(_saturated(picture, 1.2) * 9) / 9
        picture = picture.repeat(side // 32, 1).repeat(side // 32, 2)
    else:
        picture = picture * (1 + 0.012 * magnified(noise(rng, 1.2), side))
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)


def _saturated(picture: Colour, amount: float) -> Colour:
    grey = picture.mean(0, keepdims=True)
    return grey + (picture - grey) * np.float32(amount)
