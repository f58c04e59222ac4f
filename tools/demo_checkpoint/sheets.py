"""Contact sheets: many pictures in one, to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

COLUMNS, GAP, LINE = 8, 4, 12
PROMPTS = (
    "a painting of the desert at sunset, pyramids, sun",
    "a photo of the sea at night, moon, red sailboat",
    "desert at noon",
    "a photo of the snow at night, moon, pine trees",
    "a paper cutout of the meadow at dawn, sun, mountains, blue house",
    "pixel art of the sea at sunset, sun, white sailboat",
    "a painting of the meadow at noon with clouds and a red house",
    "a photo of the sea in a storm",
    "a photo of the desert at night with three pyramids and the moon",
    "a painting of the sea at dawn with the sun and a yellow sailboat",
    "pixel art of the snow at noon, mountains, pine tree, sun",
    "a paper cutout of the desert at sunset, palm trees, sun",
    "a photo of the meadow in a storm, white house",
    "a photo of the desert at noon with a pyramid, palm trees and the sun",
    "a paper cutout of the sea at night, moon, clouds",
    "pixel art of the meadow at night, purple house, moon, pine trees",
)


def write(pictures: NDArray[np.uint8], path: Path, captions: Sequence[str] = ()) -> None:
    """Write pictures [count, h, w, 3] in rows of eight, each over the words of its caption."""
    side = pictures.shape[1]
    lines = 3 if captions else 0
    rows = -(-len(pictures) // COLUMNS)
    columns = min(COLUMNS, len(pictures))
    sheet = Image.new("RGB", (columns * (side + GAP), rows * (side + GAP + lines * LINE)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        left, top = index % COLUMNS * (side + GAP), index // COLUMNS * (side + GAP + lines * LINE)
        sheet.paste(Image.fromarray(picture), (left, top))
        if captions:
            pen.multiline_text((left, top + side), _wrapped(captions[index], side // 6), fill="black", spacing=1)
    sheet.save(path)


def write_rows(rows: Sequence[tuple[str, NDArray[np.uint8]]], path: Path) -> None:
    """Write rows of pictures [count, h, w, 3], each under its label."""
    side, columns = rows[0][1].shape[1], max(len(pictures) for _, pictures in rows)
    height = LINE + 4 + side + GAP
    sheet = Image.new("RGB", (columns * (side + GAP), len(rows) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (label, pictures) in enumerate(rows):
        pen.text((2, number * height + 1), label, fill="black")
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (column * (side + GAP), number * height + LINE + 4))
    sheet.save(path, quality=90)  # fine edges are what some rows are compared by


def _wrapped(text: str, width: int) -> str:
    """At most three lines of `width` letters."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word + " "
    return "\n".join(lines[:3])
