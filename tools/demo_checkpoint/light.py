"""The light of an hour: its sky, its sun and moon, and how it changes colours."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator

from tools.demo_checkpoint.brush import SIDE, Canvas, Colour, Field, Point, colour, mixed


@dataclass(frozen=True)
class Hour:
    """The colours of a time of day, from the zenith down to the horizon, and the tint it gives to things."""

    zenith: Colour
    middle: Colour
    horizon: Colour
    tint: Colour
    cloud: Colour
    cloud_shade: Colour


HOURS = {
    "noon": Hour(
        colour(0.13, 0.42, 0.86), colour(0.38, 0.68, 0.96), colour(0.78, 0.92, 0.99), colour(1.0, 1.0, 0.99),
        colour(1.0, 1.0, 1.0), colour(0.80, 0.87, 0.95),
    ),
    "sunset": Hour(
        colour(0.27, 0.14, 0.44), colour(0.88, 0.32, 0.34), colour(1.0, 0.73, 0.30), colour(1.0, 0.80, 0.68),
        colour(1.0, 0.72, 0.55), colour(0.66, 0.30, 0.44),
    ),
    "night": Hour(
        colour(0.02, 0.03, 0.13), colour(0.05, 0.09, 0.27), colour(0.14, 0.22, 0.47), colour(0.48, 0.55, 0.80),
        colour(0.72, 0.78, 0.95), colour(0.40, 0.46, 0.70),
    ),
    "dawn": Hour(
        colour(0.50, 0.66, 0.90), colour(0.88, 0.78, 0.88), colour(1.0, 0.90, 0.76), colour(0.96, 0.90, 0.96),
        colour(1.0, 0.94, 0.94), colour(0.86, 0.70, 0.80),
    ),
    "storm": Hour(
        colour(0.13, 0.15, 0.20), colour(0.28, 0.31, 0.37), colour(0.56, 0.60, 0.62), colour(0.62, 0.66, 0.72),
        colour(0.40, 0.43, 0.48), colour(0.20, 0.22, 0.27),
    ),
}  # fmt: skip
SOILS = {
    "desert": (colour(0.96, 0.80, 0.52), colour(0.86, 0.60, 0.30)),
    "meadow": (colour(0.52, 0.74, 0.34), colour(0.22, 0.52, 0.20)),
    "snow": (colour(0.80, 0.87, 0.98), colour(0.95, 0.97, 1.0)),
}
SUNS = {"noon": colour(1.0, 0.93, 0.45), "sunset": colour(1.0, 0.86, 0.42), "dawn": colour(1.0, 0.95, 0.70)}
MOON, SEA = colour(0.97, 0.96, 0.86), colour(0.05, 0.30, 0.50)


class Light:
    """One hour in one style: lays the sky and gives everything else its tone."""

    def __init__(self, sky: str, style: str, rng: Generator) -> None:
        self._name, self._hour, self._rng = sky, HOURS[sky], rng
        self._bands = {"paper cutout": 4, "pixel art": 6}.get(style, 0)
        self._glows = style in ("photo", "painting")
        self.fuzz = 2.5 if self._glows else 1.0
        self.cloud, self.cloud_shade = self._hour.cloud / self._hour.tint, self._hour.cloud_shade / self._hour.tint
        self._shift = rng.uniform(-0.025, 0.025, 3).astype(np.float32)

    @property
    def is_dark(self) -> bool:
        return self._name in ("night", "storm")

    def tone(self, plain: Colour) -> Colour:
        """A colour as this hour shows it."""
        return plain * (self._hour.tint if plain.ndim == 1 else self._hour.tint[:, None, None])

    def vivid(self, paint: Colour) -> Colour:
        """Half of the hour's tint only, so that a painted thing keeps its colour by night."""
        return paint * (0.5 + 0.5 * self._hour.tint)

    def far(self, tone: Colour, haze: float) -> Colour:
        """A toned colour seen through the air."""
        horizon = self._hour.horizon if tone.ndim == 1 else self._hour.horizon[:, None, None]
        return tone + (horizon - tone) * np.float32(haze)

    def shaded(self, plain: Colour, away: Field) -> Colour:
        """Light on one side, shade where `away` is positive."""
        return self.tone(mixed(plain * 1.1, plain * 0.66, np.clip(away + 0.5, 0, 1)))

    def stepped(self, share: Field) -> Field:
        """A gradient 0..1, in bands where the style knows no gradients."""
        return np.floor(share * self._bands * 0.999) / (self._bands - 1) if self._bands else share

    def soil(self, ground: str) -> tuple[Colour, Colour]:
        """The far and the near colour of a ground."""
        far, near = SOILS[ground]
        return far + self._shift, near + self._shift

    def sky(self, canvas: Canvas, horizon: float) -> None:
        hour, phase = self._hour, float(self._rng.uniform(0, 6.28))
        wavy = 3.5 * np.sin(canvas.x / 15 + phase) if self._bands == 4 else 0.0
        share = self.stepped(np.clip((canvas.y + wavy) / horizon, 0, 1))
        upper, lower = np.clip(share * 2, 0, 1), np.clip(share * 2 - 1, 0, 1)
        canvas.picture[:] = mixed(
            mixed(hour.zenith + self._shift, hour.middle + self._shift, upper), hour.horizon, lower
        )
        if self._name == "night":
            self._stars(canvas, horizon)
        if self._name == "storm":
            self._storm(canvas, horizon)

    def _stars(self, canvas: Canvas, horizon: float) -> None:
        """A dozen stars, one to a cell of a coarse grid so that they never clot."""
        cells = self._rng.permutation(24)[:12]
        for cell, (dx, dy) in zip(cells, self._rng.uniform(0.2, 0.8, (12, 2)), strict=True):
            x, y = (cell % 6 + dx) * SIDE / 6, (cell // 6 + dy) * horizon / 4.4
            radius = 1.5 if canvas.pitch <= 1 else 2.0
            canvas.lay(canvas.disc(x, y, radius), colour(0.95, 0.95, 0.85), opacity=0.95, softness=1.5)

    def _storm(self, canvas: Canvas, horizon: float) -> None:
        """A bank of dark cloud over the whole width, and a bolt under it."""
        rng = self._rng
        bank = canvas.y - 14.0
        for x in np.arange(8, 128, 22):
            bank = np.minimum(
                bank, canvas.disc(float(x + rng.uniform(-5, 5)), float(rng.uniform(14, 20)), float(rng.uniform(13, 17)))
            )
        x, top = float(rng.uniform(24, 104)), 28.0
        knees: list[Point] = [(x, top), (x - 7, top + 17), (x + 2, top + 19), (x - 6, horizon - 2)]
        bolt = np.full_like(canvas.x, 1e3)
        for number, (start, end) in enumerate(pairwise(knees)):
            bolt = np.minimum(bolt, canvas.stroke(start, end, 2.4 - 0.5 * number, 2.0 - 0.5 * number))
        if self._glows:
            canvas.glow(bolt, colour(0.75, 0.78, 1.0), 9.0, 0.5)
        canvas.lay(bolt, colour(1.0, 0.98, 0.80))
        shade = np.clip((canvas.y - 4) / 26, 0, 1)
        canvas.lay(
            bank, mixed(self._hour.cloud_shade * 0.75, self._hour.cloud, self.stepped(shade)), softness=self.fuzz
        )

    def sun(self, canvas: Canvas, x: float, y: float, radius: float) -> None:
        self._orb(canvas, canvas.disc(x, y, radius), SUNS[self._name], 0.75)

    def moon(self, canvas: Canvas, x: float, y: float, radius: float, *, crescent: bool) -> None:
        if not crescent:
            self._orb(canvas, canvas.disc(x, y, radius), MOON, 0.4)
            for dx, dy, size in ((-0.3, -0.25, 0.26), (0.35, 0.1, 0.2), (-0.1, 0.45, 0.16)):
                spot = canvas.disc(x + dx * radius, y + dy * radius, size * radius)
                canvas.lay(spot, MOON * 0.86, opacity=0.999)
            return
        sickle = np.maximum(canvas.disc(x, y, radius), -canvas.disc(x + 0.5 * radius, y - 0.2 * radius, 0.85 * radius))
        if self._glows:
            canvas.glow(sickle, MOON, 12.0, 0.35)
        canvas.lay(sickle, MOON)

    def _orb(self, canvas: Canvas, disc: Field, shine: Colour, strength: float) -> None:
        if self._glows:
            canvas.glow(disc, shine, 16.0, strength)
        else:
            canvas.lay(disc - 7, shine, opacity=0.3)
        canvas.lay(disc, shine)

    def sea(self, canvas: Canvas, horizon: float, shine: float | None) -> None:
        """Water that takes its colour from the sky, with swell, and a path of light below sun or moon."""
        depth = np.clip((canvas.y - horizon) / (SIDE - horizon), 0, 1)
        far = mixed(self.tone(SEA * 1.6), self._hour.horizon, 0.5)
        water = mixed(far, self.tone(SEA * 1.15), self.stepped(np.sqrt(depth)))
        surface = canvas.below(horizon)
        canvas.lay(surface, water)
        phase = float(self._rng.uniform(0, 6.28))
        swell = np.sin(13 * np.sqrt(depth + 0.02) * 2 + 1.6 * np.sin(canvas.x / 13 + phase) * (0.4 + depth))
        crests = np.maximum(surface, 2.2 - 3.4 * swell)
        canvas.lay(crests, mixed(self.tone(SEA * 1.7), self._hour.horizon, 0.55), opacity=0.42, softness=2.0)
        if shine is not None:
            path = np.maximum(np.abs(canvas.x - shine) - 6 - 16 * depth, surface)
            canvas.lay(path, SUNS.get(self._name, MOON), opacity=0.3, softness=6.0)
            canvas.lay(np.maximum(path, 1.2 - 3.0 * swell), SUNS.get(self._name, MOON), opacity=0.7, softness=2.0)
