"""The files of a film: its frames as an animation, and side by side as a strip, both in WebP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

from worker.encode import Pixels, encoded
from worker.renderer import Frame

FILM_SIDE: Final = 512  # pixels of the longer side, at most
STRIP_SIDE: Final = 160
_QUALITY: Final = 80
_MILLISECONDS: Final = 160  # of a frame
_END_MILLISECONDS: Final = 2000  # of the last one, before it begins again
_GAP: Final = 4
_CAPTION: Final = 18  # height of the line under a frame of the strip
_LETTERS: Final = 12
_WHOLE_CELLS: Final = (
    0.02  # a step may differ from the picture's shape by this share, because it is decoded in whole cells
)
_GROUND: Final = (24, 24, 27)
_INK: Final = (212, 212, 216)

Size = tuple[int, int]


def animation(frames: Sequence[Frame]) -> bytes:
    """Return the frames one after another, in a loop."""
    size = _within(frames[-1].pixels, FILM_SIDE)
    first, *others = [_fitted(frame.pixels, size) for frame in frames]
    durations = [_MILLISECONDS] * len(others) + [_END_MILLISECONDS]
    return encoded(
        first, "WEBP", save_all=True, append_images=others, duration=durations, loop=0, quality=_QUALITY, method=2
    )


def strip(frames: Sequence[Frame]) -> bytes:
    """Return the frames side by side, each above the number of its step."""
    width, height = _within(frames[-1].pixels, STRIP_SIDE)
    sheet = Image.new("RGB", (len(frames) * (width + _GAP) - _GAP, height + _CAPTION), _GROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LETTERS)
    for place, frame in enumerate(frames):
        left = place * (width + _GAP)
        sheet.paste(_fitted(frame.pixels, (width, height)), (left, 0))
        middle = (left + width / 2, height + _CAPTION / 2)
        draw.text(middle, f"{frame.step}/{frame.steps}", fill=_INK, font=font, anchor="mm")
    return encoded(sheet, "WEBP", quality=_QUALITY, method=4)


def _within(pixels: Pixels, side: int) -> Size:
    """Return the size of a picture, reduced if its longer side passes `side`."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _fitted(pixels: Pixels, size: Size) -> Image.Image:
    """Return a whole frame at `size`: a first pass is smaller than the second, and a part may have another shape."""
    image = Image.fromarray(pixels)
    if abs(image.width * size[1] / (image.height * size[0]) - 1) <= _WHOLE_CELLS:
        return image.resize(size, Image.Resampling.LANCZOS)
    return ImageOps.pad(image, size, Image.Resampling.LANCZOS, _GROUND)
