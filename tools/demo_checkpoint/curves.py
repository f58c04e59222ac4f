"""A loss curve as a picture."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE, MARGIN = (720, 360), 40


def draw_curve(history: list[dict[str, float]], path: Path, *, part: str = "loss") -> None:
    """Draw one part of the history, averaged over a hundredth of its length, on a logarithmic scale."""
    values = np.array([step[part] for step in history])
    if len(values) < 100:
        return
    means = np.array([chunk.mean() for chunk in np.array_split(values, 100)])
    low, high = np.log(means.min()), np.log(means.max()) + 1e-6
    width, height = SIZE[0] - 2 * MARGIN, SIZE[1] - 2 * MARGIN
    points = [
        (MARGIN + width * index / 99, MARGIN + height * (high - np.log(value)) / (high - low))
        for index, value in enumerate(means)
    ]
    picture = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((MARGIN, MARGIN, SIZE[0] - MARGIN, SIZE[1] - MARGIN), outline="#bbbbbb")
    pen.line(points, fill="#2255cc", width=2)
    pen.text((4, MARGIN - 6), f"{means.max():.3g}", fill="black")
    pen.text((4, SIZE[1] - MARGIN - 6), f"{means.min():.3g}", fill="black")
    pen.text((MARGIN, SIZE[1] - MARGIN + 8), f"{part} over {len(values)} steps", fill="black")
    picture.save(path)
